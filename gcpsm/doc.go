// Package gcpsm keeps OAuth token records in Google Cloud Secret Manager.
package gcpsm
