# The agent writes one line of JSON for each request that it could not answer.
resource "google_logging_metric" "failed" {
  project = var.project
  name    = "${var.name}-failed"
  filter  = "jsonPayload.msg=\"agent: request\" AND jsonPayload.level=\"WARN\""
  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }
}

resource "google_monitoring_alert_policy" "failed" {
  project               = var.project
  display_name          = "${var.name}: the agent cannot serve tokens"
  combiner              = "OR"
  notification_channels = var.notification_channels
  conditions {
    display_name = "requests that the agent could not answer"
    condition_threshold {
      filter          = "metric.type=\"logging.googleapis.com/user/${google_logging_metric.failed.name}\" AND resource.type=one_of(\"k8s_container\", \"cloud_run_revision\", \"gce_instance\")"
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "180s"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}

# A refresh writes a record twice, and the quota is the project's.
resource "google_monitoring_alert_policy" "throttled" {
  project               = var.project
  display_name          = "${var.name}: Secret Manager throttles"
  combiner              = "OR"
  notification_channels = var.notification_channels
  conditions {
    display_name = "calls over the quota"
    condition_threshold {
      filter          = "metric.type=\"serviceruntime.googleapis.com/quota/exceeded\" AND resource.type=\"consumer_quota\" AND resource.label.service=\"secretmanager.googleapis.com\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period     = "60s"
        per_series_aligner   = "ALIGN_COUNT_TRUE"
        cross_series_reducer = "REDUCE_SUM"
      }
    }
  }
}
