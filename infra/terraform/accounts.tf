# One account for each that runs, with what it needs and no key: none is downloaded, none can leak.
resource "google_service_account" "tracking" {
  account_id   = "newsbert-tracking"
  display_name = "MLflow's server"
}

resource "google_service_account" "model" {
  account_id   = "newsbert-model"
  display_name = "The served model, which reaches nothing"
}

resource "google_service_account" "trainer" {
  account_id   = "newsbert-trainer"
  display_name = "The training machine"
}

resource "google_storage_bucket_iam_member" "tracking" {
  bucket = google_storage_bucket.artifacts.name
  role   = "roles/storage.objectUser"
  member = google_service_account.tracking.member
}

resource "google_secret_manager_secret_iam_member" "tracking" {
  secret_id = google_secret_manager_secret.database.id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.tracking.member
}

resource "google_artifact_registry_repository_iam_member" "trainer" {
  repository = google_artifact_registry_repository.images.name
  location   = var.region
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.trainer.member
}

resource "google_project_iam_member" "trainer_logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.trainer.member
}

# It deletes itself and no other machine.
resource "google_project_iam_custom_role" "ends_itself" {
  role_id     = "newsbertEndsItself"
  title       = "Delete the training machine"
  permissions = ["compute.instances.delete", "compute.instances.get"]
}

resource "google_compute_instance_iam_member" "trainer" {
  count         = length(var.training) > 0 ? 1 : 0
  zone          = google_compute_instance.trainer[0].zone
  instance_name = google_compute_instance.trainer[0].name
  role          = google_project_iam_custom_role.ends_itself.id
  member        = google_service_account.trainer.member
}
