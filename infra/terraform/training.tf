# A machine that is there only while `training` is set, and deletes itself when it has trained.
resource "google_compute_instance" "trainer" {
  #checkov:skip=CKV_GCP_38:Google's own keys encrypt the disk, which is gone after the training
  count        = length(var.training) > 0 ? 1 : 0
  name         = "newsbert-trainer"
  machine_type = var.training_machine
  zone         = "${var.region}-b"

  boot_disk {
    initialize_params {
      image = "cos-cloud/cos-stable"
      size  = 50
    }
  }

  # Without a public address.
  network_interface {
    subnetwork = google_compute_subnetwork.newsbert.id
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  # It ends after this, whatever it does.
  scheduling {
    max_run_duration {
      seconds = 6 * 3600
    }
    instance_termination_action = "DELETE"
    on_host_maintenance         = "TERMINATE"
    automatic_restart           = false
  }

  service_account {
    email  = google_service_account.trainer.email
    scopes = ["cloud-platform"]
  }

  metadata = {
    block-project-ssh-keys = "true"
    startup-script = templatefile("${path.module}/train.sh.tftpl", {
      image    = var.trainer_image
      registry = "${var.region}-docker.pkg.dev"
      tracking = "https://${local.tracking_host}"
      command  = join(" ", [for word in var.training : "'${replace(word, "'", "'\\''")}'"])
    })
  }

  depends_on = [google_cloud_run_v2_service.tracking]
}
