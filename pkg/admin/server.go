package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Bounds of one connection and of the server's end.
const (
	readTimeout    = 5 * time.Second
	writeTimeout   = 30 * time.Second
	idleTimeout    = time.Minute
	maxHeaderBytes = 8 << 10
	stopTimeout    = 3 * time.Second
)

// Sources are what the API reads, at each request and from several goroutines at once.
type Sources struct {
	// Version is the daemon's own, as the build set it.
	Version string
	// Started is when the daemon came up.
	Started time.Time
	// Status gives all that the server does not know itself: it fills in Version,
	// Started, UptimeMS, Goroutines and OpenFDs.
	Status func() (Status, error)
	// Calls gives the live calls in any order.
	Calls func() []call.Info
	// Trunks gives all trunks in the config's order.
	Trunks func() []TrunkStatus
	// Groups gives all groups in the config's order.
	Groups func() []GroupStatus
	// SetTrunk changes the state that is wanted of a trunk, and returns the trunk. Its error
	// wraps ErrUnknownTrunk, or says what is wrong with the state.
	SetTrunk func(name, state string) (TrunkStatus, error)
	// Reload reads the config file again and tells what has changed, or would change. Its error
	// wraps ErrConfigMoved if that is not what the order's fingerprint is of.
	Reload func(ReloadOrder) (Reload, error)
	// Realms gives each realm's network in the config's order (N9).
	Realms func() []call.Realm
	// Tunnels gives all tunnels, those of a realm by rank (I7).
	Tunnels func() []call.Tunnel
	// Route says what would become of a call (T12).
	Route func(call.Query) call.Decision
	// Log takes what goes wrong in the server; nil discards it.
	Log *slog.Logger
}

// Server serves the API.
type Server struct {
	sources  Sources
	listener net.Listener
	http     http.Server
}

// New takes the socket, so that a daemon which cannot be seen does not start. A socket
// file that nobody listens on is replaced; ErrInUse is returned if somebody does.
// Run or Close gives the socket back.
func New(cfg Config, sources Sources) (*Server, error) {
	if sources.Log == nil {
		sources.Log = slog.New(slog.DiscardHandler)
	}
	listener, err := listen(cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("admin API: %w", err)
	}
	s := &Server{sources: sources, listener: listener}
	s.http = http.Server{
		Handler:        s.routes(),
		ReadTimeout:    readTimeout,
		WriteTimeout:   writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		ErrorLog:       slog.NewLogLogger(sources.Log.Handler(), slog.LevelWarn),
	}
	return s, nil
}

// Run serves until ctx is done and then returns nil; the socket file is gone then.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", s.listener.Addr(), errors.Join(err, s.Close()))
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err := s.http.Shutdown(patience)
	if err != nil {
		// Somebody is still reading an answer: they have had their time.
		err = s.Close()
	}
	<-failed
	return err
}

// Close ends a server that does not run, at once; it may be called again.
func (s *Server) Close() error {
	if err := errors.Join(s.http.Close(), s.listener.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close admin API: %w", err)
	}
	return nil
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/calls", s.calls)
	mux.HandleFunc("GET /v1/trunks", s.trunks)
	mux.HandleFunc("POST /v1/trunks/{name}/state", s.setTrunk)
	mux.HandleFunc("GET /v1/groups", s.groups)
	mux.HandleFunc("POST /v1/reload", s.reload)
	mux.HandleFunc("GET /v1/realms", s.realms)
	mux.HandleFunc("GET /v1/tunnels", s.tunnels)
	mux.HandleFunc("GET /v1/route", s.route)
	mux.HandleFunc("GET /v1/version", s.version)
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, http.StatusNotFound, "no such resource: "+r.URL.Path)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", http.MethodGet)
		s.fail(w, http.StatusMethodNotAllowed, "nothing can be changed here: use GET")
	})
	return mux
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	st, err := s.sources.Status()
	if err != nil {
		s.fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	st.Version = s.sources.Version
	st.Started = s.sources.Started
	st.UptimeMS = time.Since(s.sources.Started).Milliseconds()
	if err := st.Resources.ofProcess(); err != nil {
		s.fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	s.reply(w, http.StatusOK, st)
}

func (s *Server) calls(w http.ResponseWriter, _ *http.Request) {
	calls := s.sources.Calls()
	// A call's id begins with its time.
	slices.SortFunc(calls, func(a, b call.Info) int { return cmp.Compare(a.ID, b.ID) })
	s.reply(w, http.StatusOK, orEmpty(calls))
}

func (s *Server) trunks(w http.ResponseWriter, _ *http.Request) {
	s.reply(w, http.StatusOK, orEmpty(s.sources.Trunks()))
}

func (s *Server) realms(w http.ResponseWriter, _ *http.Request) {
	s.reply(w, http.StatusOK, orEmpty(s.sources.Realms()))
}

func (s *Server) tunnels(w http.ResponseWriter, _ *http.Request) {
	s.reply(w, http.StatusOK, orEmpty(s.sources.Tunnels()))
}

func (s *Server) version(w http.ResponseWriter, _ *http.Request) {
	s.reply(w, http.StatusOK, ThisVersion(s.sources.Version))
}

// orEmpty keeps an empty list from becoming null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (s *Server) fail(w http.ResponseWriter, status int, text string) {
	s.reply(w, status, fault{Error: text})
}

func (s *Server) reply(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		s.sources.Log.Error("admin API: an answer cannot be written as JSON", "err", err)
		http.Error(w, `{"error":"internal: the answer cannot be written as JSON"}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A reader that went away is its own affair.
	_, _ = w.Write(append(text, '\n'))
}
