# Reached by the tracking server alone: who logs has no rights here.
resource "google_storage_bucket" "artifacts" {
  #checkov:skip=CKV_GCP_62:Cloud Audit Logs tell who read what; a second bucket for logs would be one more to guard
  name                        = "${var.project}-mlflow"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = true
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 30
    }
  }
}

resource "google_artifact_registry_repository" "images" {
  #checkov:skip=CKV_GCP_84:Google's own keys encrypt it; keys of one's own are an organization's choice
  repository_id = "newsbert"
  location      = var.region
  format        = "DOCKER"

  docker_config {
    immutable_tags = false
  }
}
