// Package admin is the daemon's management API: HTTP with JSON bodies on a Unix
// socket that the file system guards, and its Go client (N6, O5). It only reads.
//
//	GET /v1/status   Status
//	GET /v1/calls    []call.Info, oldest first
//	GET /v1/trunks   []TrunkStatus
//	GET /v1/realms   []call.Realm
//	GET /v1/tunnels  []call.Tunnel, by realm and rank
//	GET /v1/version  Version
//
// An error has a status of 400 or above and the body {"error": "..."}.
package admin
