# The database has no public address; Cloud Run and the training machine reach it from inside.
resource "google_compute_network" "newsbert" {
  name                    = "newsbert"
  auto_create_subnetworks = false
}

resource "google_compute_subnetwork" "newsbert" {
  name                     = "newsbert"
  network                  = google_compute_network.newsbert.id
  ip_cidr_range            = "10.8.0.0/24"
  private_ip_google_access = true

  log_config {
    aggregation_interval = "INTERVAL_5_MIN"
    flow_sampling        = 0.1
    metadata             = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_firewall" "nobody" {
  name          = "newsbert-nobody"
  network       = google_compute_network.newsbert.id
  direction     = "INGRESS"
  source_ranges = ["0.0.0.0/0"]

  deny {
    protocol = "all"
  }

  log_config {
    metadata = "INCLUDE_ALL_METADATA"
  }
}

resource "google_compute_global_address" "services" {
  name          = "newsbert-services"
  network       = google_compute_network.newsbert.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
}

resource "google_service_networking_connection" "services" {
  network                 = google_compute_network.newsbert.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services.name]
}

# The training machine has no public address either; this is its way to the Hugging Face Hub.
resource "google_compute_router" "newsbert" {
  name    = "newsbert"
  network = google_compute_network.newsbert.id
}

resource "google_compute_router_nat" "newsbert" {
  name                               = "newsbert"
  router                             = google_compute_router.newsbert.name
  nat_ip_allocate_option             = "AUTO_ONLY"
  source_subnetwork_ip_ranges_to_nat = "ALL_SUBNETWORKS_ALL_IP_RANGES"
}
