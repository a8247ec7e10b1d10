# The role of a store in Google Cloud Secret Manager, and what it takes to use it: a service
# account, and a key.

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0"
    }
  }
}

data "google_project" "this" {
  project_id = var.project
}

resource "google_project_service" "secretmanager" {
  project            = var.project
  service            = "secretmanager.googleapis.com"
  disable_on_destroy = false
}

resource "google_project_iam_custom_role" "tokenkeep" {
  project = var.project
  role_id = var.name
  title   = var.name
  # What gcpsm.Permissions returns; a test of tokenkeep writes the file.
  permissions = jsondecode(file("${path.module}/permissions.json"))
}

resource "google_service_account" "tokenkeep" {
  count        = var.service_account == null ? 1 : 0
  project      = var.project
  account_id   = var.name
  display_name = "Programs that keep tokens under ${var.prefix}"
}

locals {
  account = var.service_account == null ? google_service_account.tokenkeep[0].email : var.service_account
}

resource "google_project_iam_member" "tokenkeep" {
  project = var.project
  role    = google_project_iam_custom_role.tokenkeep.id
  member  = "serviceAccount:${local.account}"
}

resource "google_kms_key_ring" "records" {
  count    = var.key_location == null ? 0 : 1
  project  = var.project
  name     = var.name
  location = var.key_location
}

resource "google_kms_crypto_key" "records" {
  count           = var.key_location == null ? 0 : 1
  name            = "records"
  key_ring        = google_kms_key_ring.records[0].id
  rotation_period = "7776000s"
  lifecycle {
    prevent_destroy = true
  }
}

# Secret Manager encrypts, and not the program.
resource "google_kms_crypto_key_iam_member" "records" {
  count         = var.key_location == null ? 0 : 1
  crypto_key_id = google_kms_crypto_key.records[0].id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-secretmanager.iam.gserviceaccount.com"
}
