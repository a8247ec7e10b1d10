// Package tokenfile reads and writes the token files of the Zoho SDKs. Each row of
// comma-separated values holds one record. Details of the format depend on the SDK.
package tokenfile
