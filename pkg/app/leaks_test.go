package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/config"
	"github.com/tandem-sbc/tandem/pkg/realm"
)

// fitful is an engine whose counters cannot be read now and then.
type fitful struct {
	*manyFlows
	reads []func() (call.EngineStats, error)
}

func (e *fitful) Stats() (call.EngineStats, error) {
	read := e.reads[0]
	e.reads = e.reads[1:]
	return read()
}

// N5: counters that cannot be read end nothing, and are told of once; what a former process has counted
// is no news after that either, and a leak is.
func TestLeaksAfterAFailedRead(t *testing.T) {
	fails := func() (call.EngineStats, error) { return call.EngineStats{}, errors.New("read the exit counters") }
	leaked := func(packets uint64) func() (call.EngineStats, error) {
		return func() (call.EngineStats, error) {
			return call.EngineStats{Exits: []call.Exit{{Realm: 1, Reason: "clear-text", Packets: packets}}}, nil
		}
	}
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		d := &daemon{cfg: &config.Config{Realms: []realm.Config{{Name: "carrier"}}}, log: slog.New(slog.NewTextHandler(&said, nil))}
		d.engine = &fitful{newManyFlows(), []func() (call.EngineStats, error){fails, fails, leaked(5), fails, leaked(7)}}
		ctx, cancel := context.WithTimeout(t.Context(), 4*leakInterval+time.Second)
		defer cancel()
		if err := d.watchLeaks(ctx); err != nil {
			t.Error(err)
		}
		for text, want := range map[string]int{"read the exit counters": 2, "packets=": 1, "packets=2 total=7": 1} {
			if n := strings.Count(said.String(), text); n != want {
				t.Errorf("%q is said %d times, want %d:\n%s", text, n, want, said.String())
			}
		}
	})
}
