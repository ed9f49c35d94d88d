output "tracking_url" {
  description = "MLFLOW_TRACKING_URI; with MLFLOW_TRACKING_TOKEN=$(gcloud auth print-identity-token)."
  value       = "https://${local.tracking_host}"
}

output "model_url" {
  description = "Where the model answers."
  value       = one(google_cloud_run_v2_service.model[*].uri)
}

output "repository" {
  description = "newsbert build-image --repository"
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}
