locals {
  # Without a name of its own Cloud Run makes it of the project's number; its other address, `uri`, is not answered at.
  tracking_host = "mlflow-${data.google_project.this.number}.${var.region}.run.app"
}

data "google_project" "this" {}

resource "google_cloud_run_v2_service" "tracking" {
  name     = "mlflow"
  location = var.region
  ingress  = "INGRESS_TRAFFIC_ALL"

  template {
    service_account = google_service_account.tracking.email

    scaling {
      min_instance_count = 1
      max_instance_count = 1
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = google_compute_network.newsbert.name
        subnetwork = google_compute_subnetwork.newsbert.name
      }
    }

    containers {
      image = var.tracking_image
      ports {
        container_port = 5000
      }
      env {
        name  = "MLFLOW_ARTIFACTS_DESTINATION"
        value = "gs://${google_storage_bucket.artifacts.name}"
      }
      env {
        name  = "NEWSBERT_TRACKING_ALLOWED_HOSTS"
        value = local.tracking_host
      }
      # Google asks who calls; a second password would take the header that Google's token is in.
      env {
        name  = "NEWSBERT_TRACKING_AUTH"
        value = "0"
      }
      env {
        name = "MLFLOW_BACKEND_STORE_URI"
        value_source {
          secret_key_ref {
            secret  = google_secret_manager_secret.database.secret_id
            version = "latest"
          }
        }
      }
      resources {
        limits            = { cpu = "2", memory = "2Gi" }
        startup_cpu_boost = true
      }
      startup_probe {
        http_get {
          path = "/health"
        }
        period_seconds    = 5
        failure_threshold = 24
      }
    }
  }
}

resource "google_cloud_run_v2_service" "model" {
  count    = var.model_image == "" ? 0 : 1
  name     = "news"
  location = var.region
  ingress  = "INGRESS_TRAFFIC_ALL"

  template {
    service_account                  = google_service_account.model.email
    max_instance_request_concurrency = 64

    scaling {
      min_instance_count = 0
      max_instance_count = 10
    }

    containers {
      image = var.model_image
      ports {
        container_port = 8080
      }
      env {
        name  = "NEWSBERT_SERVE_LOG_FORMAT"
        value = "json"
      }
      env {
        # Cloud Run gives ten seconds.
        name  = "NEWSBERT_SERVE_DRAIN_S"
        value = "8"
      }
      resources {
        limits            = { cpu = "2", memory = "2Gi" }
        startup_cpu_boost = true
      }
      startup_probe {
        http_get {
          path = "/ping"
        }
        period_seconds    = 3
        failure_threshold = 40
      }
    }
  }
}

# Both ask Google who calls, before they are asked: nobody else reaches either.
resource "google_cloud_run_v2_service_iam_member" "tracking" {
  for_each = toset(concat(var.people, [google_service_account.trainer.member]))
  name     = google_cloud_run_v2_service.tracking.name
  location = var.region
  role     = "roles/run.invoker"
  member   = each.value
}

resource "google_cloud_run_v2_service_iam_member" "model" {
  for_each = var.model_image == "" ? toset([]) : toset(var.people)
  name     = google_cloud_run_v2_service.model[0].name
  location = var.region
  role     = "roles/run.invoker"
  member   = each.value
}
