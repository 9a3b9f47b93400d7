// Package metrics shows the daemon to Prometheus (O1). Everything is read when it is
// scraped; nothing is labelled by call.
package metrics
