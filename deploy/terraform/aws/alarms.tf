# The agent writes one line of JSON for each request that it could not answer.
resource "aws_cloudwatch_log_metric_filter" "failed" {
  count          = var.log_group_name == null ? 0 : 1
  name           = "${var.name}-failed"
  log_group_name = var.log_group_name
  pattern        = "{ $.msg = \"agent: request\" && $.level = \"WARN\" }"
  metric_transformation {
    name          = "${var.name}-failed"
    namespace     = "tokenkeep"
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "failed" {
  count               = var.log_group_name == null ? 0 : 1
  alarm_name          = "${var.name}-failed"
  alarm_description   = "The agent cannot serve tokens: the store or the authorization server fails."
  namespace           = "tokenkeep"
  metric_name         = aws_cloudwatch_log_metric_filter.failed[0].name
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 5
  datapoints_to_alarm = 3
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
}

# Every refresh writes a record twice, and the quota is the account's.
resource "aws_cloudwatch_metric_alarm" "writes" {
  count               = var.writes_per_minute == 0 ? 0 : 1
  alarm_name          = "${var.name}-writes"
  alarm_description   = "Secrets Manager throttles PutSecretValue before long."
  namespace           = "AWS/Usage"
  metric_name         = "CallCount"
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 3
  threshold           = var.writes_per_minute
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  dimensions = {
    Service  = "Secrets Manager"
    Resource = "PutSecretValue"
    Type     = "API"
    Class    = "None"
  }
}
