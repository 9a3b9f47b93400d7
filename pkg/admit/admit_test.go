package admit

import (
	"testing"
	"time"
)

type named string

func (n *named) Name() string {
	if n == nil {
		return ""
	}
	return string(*n)
}

func TestAdmit(t *testing.T) {
	carrier := named("carrier-a")
	var nobody *named
	for _, row := range []struct {
		name string
		r    Request
		code string
		sip  int
		// retryAfter is what the response carries, in seconds.
		retryAfter int
	}{
		{"OK", Request{Trunk: &carrier, MaxForwards: 70}, "", 0, 0},
		{"OK last hop", Request{Trunk: &carrier, MaxForwards: 1}, "", 0, 0},
		{"OK the last call that fits", Request{Trunk: &carrier, MaxForwards: 70, Active: 100, MaxCalls: 100}, "", 0, 0},
		{"bad stranger", Request{MaxForwards: 70}, "unknown-trunk", 403, 0},
		{"bad nil trunk", Request{Trunk: nobody, MaxForwards: 70}, "unknown-trunk", 403, 0},
		{"bad stranger learns nothing of a drain", Request{Trunk: nobody, Draining: true}, "unknown-trunk", 403, 0},
		{"bad no hops left (S19)", Request{Trunk: &carrier}, "too-many-hops", 483, 0},
		{"bad draining", Request{Trunk: &carrier, MaxForwards: 70, Draining: true}, "draining", 503, 5},
		{"OK emergency when it is full (T3)", Request{Trunk: &carrier, MaxForwards: 70, Active: 101, MaxCalls: 100, Emergency: true}, "", 0, 0},
		{"bad emergency while draining", Request{Trunk: &carrier, MaxForwards: 70, Draining: true, Emergency: true}, "draining", 503, 5},
		{"bad full", Request{Trunk: &carrier, MaxForwards: 70, Active: 101, MaxCalls: 100}, "gateway-full", 503, 5},
	} {
		t.Run(row.name, func(t *testing.T) {
			cause := Admit(row.r)
			if row.code == "" {
				if cause != nil {
					t.Fatalf("refused: %v", cause)
				}
				return
			}
			if cause == nil {
				t.Fatal("let in")
			}
			if cause.Code != row.code || cause.SIP != row.sip || cause.By != "tandem" || cause.Text == "" || cause.Q850 == 0 {
				t.Errorf("cause %+v", cause)
			}
			if got := cause.Rejection(); got.Code != row.sip || got.RetryAfter != row.retryAfter {
				t.Errorf("response %+v", got)
			}
		})
	}
}

// T3, T4: beyond a limit a call gets 503 with Retry-After.
func TestRefused(t *testing.T) {
	carrier := named("carrier-a")
	for reason, code := range map[string]string{
		"full": "trunk-full", "realm-full": "realm-full", "rate": "trunk-rate", "realm-rate": "realm-rate", "closed": "trunk-closed",
	} {
		cause := Refused(&carrier, reason, 6100*time.Millisecond)
		if r := cause.Rejection(); cause.Code != code || r.Code != 503 || r.RetryAfter != 7 || cause.Q850 == 0 || cause.Text == "" {
			t.Errorf("%s: cause %+v, response %+v", reason, cause, r)
		}
	}
}
