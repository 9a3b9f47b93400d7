package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Route returns what would become of a call.
func (c *Client) Route(ctx context.Context, q call.Query) (call.Decision, error) {
	return get[call.Decision](ctx, c, "route?"+encodeQuery(q).Encode())
}

func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	if s.sources.Route == nil {
		s.fail(w, http.StatusNotImplemented, "this daemon cannot explain routes")
		return
	}
	q, err := decodeQuery(r.URL.Query())
	if err != nil {
		s.fail(w, http.StatusBadRequest, err.Error())
		return
	}
	d := s.sources.Route(q)
	d.Steps, d.Candidates = orEmpty(d.Steps), orEmpty(d.Candidates)
	s.reply(w, http.StatusOK, d)
}

func encodeQuery(q call.Query) url.Values {
	v := url.Values{"trunk": {q.Trunk}, "from": {q.From}, "to": {q.To}}
	if q.ToHeader != "" {
		v.Set("to_header", q.ToHeader)
	}
	for _, h := range q.Headers {
		v.Add("header", h.Name+": "+h.Value)
	}
	if !q.At.IsZero() {
		v.Set("at", q.At.Format(time.RFC3339Nano))
	}
	return v
}

func decodeQuery(v url.Values) (call.Query, error) {
	q := call.Query{Trunk: v.Get("trunk"), From: v.Get("from"), To: v.Get("to"), ToHeader: v.Get("to_header")}
	if q.Trunk == "" {
		return q, errors.New("trunk is missing: name the one that the call would come from")
	}
	for _, text := range v["header"] {
		h, err := ParseHeader(text)
		if err != nil {
			return q, err
		}
		q.Headers = append(q.Headers, h)
	}
	if at := v.Get("at"); at != "" {
		var err error
		if q.At, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return q, fmt.Errorf("at is no time of RFC 3339: %.64q", at)
		}
	}
	return q, nil
}

// ParseHeader reads "Name: value".
func ParseHeader(text string) (call.Header, error) {
	name, value, ok := strings.Cut(text, ":")
	if name = strings.TrimSpace(name); !ok || name == "" {
		return call.Header{}, fmt.Errorf("%.64q is no header: write it as 'Name: value'", text)
	}
	return call.Header{Name: name, Value: strings.TrimSpace(value)}, nil
}
