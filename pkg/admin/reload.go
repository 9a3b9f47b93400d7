package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"
)

// reloadTimeout bounds a reload: a config of a thousand trunks takes a while to be read.
const reloadTimeout = 25 * time.Second

// ErrConfigMoved means that what was to be applied is not what was shown any more: nothing has
// changed.
var ErrConfigMoved = errors.New("the config has changed since its changes were shown")

// Reload is what a reload has changed, or would change.
type Reload struct {
	// DryRun changed nothing.
	DryRun bool `json:"dry_run"`
	// Changes are in the order of the config, those that wait for a restart last.
	Changes []Change `json:"changes"`
	// Fingerprint of the changes: who has shown those of a dry run gives it back, so that they
	// are what is applied.
	Fingerprint string `json:"fingerprint,omitempty"`
}

// ReloadOrder is what is wanted of a reload.
type ReloadOrder struct {
	// DryRun changes nothing.
	DryRun bool
	// Fingerprint of the changes that are wanted and no others; empty takes whatever there is.
	Fingerprint string
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
	return c.order(ctx, ReloadOrder{DryRun: dryRun})
}

// Apply is a Reload that makes the changes of a dry run, by its fingerprint. The error wraps
// ErrConfigMoved if they would be others by now; nothing has changed then.
func (c *Client) Apply(ctx context.Context, fingerprint string) (Reload, error) {
	return c.order(ctx, ReloadOrder{Fingerprint: fingerprint})
}

func (c *Client) order(ctx context.Context, o ReloadOrder) (Reload, error) {
	patient := *c
	patient.http.Timeout = reloadTimeout
	query := make(url.Values)
	if o.DryRun {
		query.Set("dry_run", "true")
	}
	if o.Fingerprint != "" {
		query.Set("fingerprint", o.Fingerprint)
	}
	path := "reload"
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return post[Reload](ctx, &patient, "reload", path, nil)
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	dry := query.Get("dry_run")
	if dry != "" && dry != "true" && dry != "false" {
		s.fail(w, http.StatusBadRequest, "dry_run is true or false")
		return
	}
	done, err := s.sources.Reload(ReloadOrder{DryRun: dry == "true", Fingerprint: query.Get("fingerprint")})
	switch {
	case errors.Is(err, ErrConfigMoved):
		s.fail(w, http.StatusConflict, "nothing has changed: "+err.Error()+"; look at the new ones first")
	case err != nil:
		s.fail(w, http.StatusUnprocessableEntity, "nothing has changed: "+err.Error())
	default:
		done.DryRun, done.Changes = dry == "true", orEmpty(done.Changes)
		s.reply(w, http.StatusOK, done)
	}
}
