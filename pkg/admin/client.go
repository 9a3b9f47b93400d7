package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const (
	// clientTimeout bounds a request whose context has no earlier deadline.
	clientTimeout = 10 * time.Second
	// maxBody bounds an answer: 100,000 calls take about half of it.
	maxBody = 256 << 20
)

var (
	// ErrNotRunning means that nobody listens on the socket.
	ErrNotRunning = errors.New("no daemon answers")
	// ErrNotAllowed means that the file system does not let the caller in.
	ErrNotAllowed = errors.New("permission denied")
)

// Client speaks the API. It is safe for use by several goroutines and needs no closing.
type Client struct {
	socket string
	http   http.Client
}

// NewClient returns a client of the daemon on the socket; it does not connect yet.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: http.Client{
		Timeout: clientTimeout,
		Transport: &http.Transport{
			// One request per connection: nothing is left open between them.
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, "unix", socket)
			},
		},
	}}
}

// Status returns the daemon at a glance.
func (c *Client) Status(ctx context.Context) (Status, error) { return get[Status](ctx, c, "status") }

// Calls returns the live calls, oldest first.
func (c *Client) Calls(ctx context.Context) ([]call.Info, error) {
	return get[[]call.Info](ctx, c, "calls")
}

// Trunks returns all trunks in the config's order.
func (c *Client) Trunks(ctx context.Context) ([]TrunkStatus, error) {
	return get[[]TrunkStatus](ctx, c, "trunks")
}

// Realms returns each realm's network, wanted against actual, in the config's order.
func (c *Client) Realms(ctx context.Context) ([]call.Realm, error) {
	return get[[]call.Realm](ctx, c, "realms")
}

// Tunnels returns all tunnels, those of a realm by rank.
func (c *Client) Tunnels(ctx context.Context) ([]call.Tunnel, error) {
	return get[[]call.Tunnel](ctx, c, "tunnels")
}

// Version returns what the daemon is.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return get[Version](ctx, c, "version")
}

// get reads one resource.
func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	resource, _, _ := strings.Cut(path, "?")
	return send[T](ctx, c, "read "+resource, http.MethodGet, path, nil)
}

// post changes one resource; what is that in words, and body is left out if it is nil.
func post[T any](ctx context.Context, c *Client, what, path string, body any) (T, error) {
	var text io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			var none T
			return none, fmt.Errorf("%s: %w", what, err)
		}
		text = bytes.NewReader(encoded)
	}
	return send[T](ctx, c, what, http.MethodPost, path, text)
}

// send makes one request. A field of the answer that this client does not know is left
// out, so that it can speak to a newer daemon.
func send[T any](ctx context.Context, c *Client, what, method, path string, content io.Reader) (T, error) {
	var value T
	req, err := http.NewRequestWithContext(ctx, method, "http://tandem/v1/"+path, content)
	if err != nil {
		return value, fmt.Errorf("%s: %w", what, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return value, c.explain(what, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return value, fmt.Errorf("%s: %w", what, err)
	case len(body) > maxBody:
		return value, fmt.Errorf("%s: the answer is longer than %d bytes", what, maxBody)
	case resp.StatusCode != http.StatusOK:
		var f fault
		if json.Unmarshal(body, &f) != nil || f.Error == "" {
			f.Error = "no reason given"
		}
		err := fmt.Errorf("%s: the daemon says %s: %s", what, resp.Status, f.Error)
		if resp.StatusCode == http.StatusConflict {
			return value, movedError{err} // nothing else is answered so
		}
		return value, err
	}
	if err := json.Unmarshal(body, &value); err != nil {
		return value, fmt.Errorf("%s: %w", what, err)
	}
	return value, nil
}

// movedError is ErrConfigMoved in the daemon's words.
type movedError struct{ error }

func (movedError) Is(target error) bool { return target == ErrConfigMoved }

// explain turns what connecting says into what it means.
func (c *Client) explain(what string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w on %s: start tandemd", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w on %s: run as root or as a member of the socket's group", ErrNotAllowed, c.socket)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}
