// Package admin is the daemon's management API: HTTP with JSON bodies on a Unix
// socket that the file system guards, and its Go client (N6, O5).
//
//	GET /v1/status   Status
//	GET /v1/calls    []call.Info, oldest first
//	GET /v1/trunks   []TrunkStatus
//	GET /v1/groups   []GroupStatus
//	GET /v1/realms   []call.Realm
//	GET /v1/tunnels  []call.Tunnel, by realm and rank
//	GET /v1/version  Version
//
//	POST /v1/trunks/NAME/state  {"state": "draining"} -> TrunkStatus
//	POST /v1/reload             -> Reload; with ?dry_run=true nothing changes; with ?fingerprint=F of
//	                               a dry run 409 if the changes are others by now
//
// An error has a status of 400 or above and the body {"error": "..."}.
package admin
