package admin

import (
	"context"
	"net/http"
	"time"
)

// reloadTimeout bounds a reload: a config of a thousand trunks takes a while to be read.
const reloadTimeout = 25 * time.Second

// Reload is what a reload has changed, or would change.
type Reload struct {
	// DryRun changed nothing.
	DryRun bool `json:"dry_run"`
	// Changes are in the order of the config, those that wait for a restart last.
	Changes []Change `json:"changes"`
}

// Change is a key of the config that differs from the config in use.
type Change struct {
	// Path of the key; entries of lists are called by their names: "trunks[carrier-b].max_calls".
	Path string `json:"path"`
	// Old is empty for an entry that was added, New for one that was removed.
	Old string `json:"old"`
	New string `json:"new"`
	// Effect is "hot", "drain" or "restart".
	Effect string `json:"effect"`
	// Text is the change for people.
	Text string `json:"text"`
}

// Reload has the daemon read its config file again. An error says what is wrong with it;
// nothing has changed then.
func (c *Client) Reload(ctx context.Context, dryRun bool) (Reload, error) {
	patient := *c
	patient.http.Timeout = reloadTimeout
	path := "reload"
	if dryRun {
		path += "?dry_run=true"
	}
	return post[Reload](ctx, &patient, "reload", path, nil)
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	dry := r.URL.Query().Get("dry_run")
	if dry != "" && dry != "true" && dry != "false" {
		s.fail(w, http.StatusBadRequest, "dry_run is true or false")
		return
	}
	changes, err := s.sources.Reload(dry == "true")
	if err != nil {
		s.fail(w, http.StatusUnprocessableEntity, "nothing has changed: "+err.Error())
		return
	}
	s.reply(w, http.StatusOK, Reload{DryRun: dry == "true", Changes: orEmpty(changes)})
}
