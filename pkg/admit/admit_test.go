package admit

import "testing"

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

// T3: beyond the trunk's limit a call gets 503 with Retry-After.
func TestTrunkFull(t *testing.T) {
	carrier := named("carrier-a")
	cause := TrunkFull(&carrier)
	if r := cause.Rejection(); cause.Code != "trunk-full" || r.Code != 503 || r.RetryAfter == 0 {
		t.Errorf("cause %+v, response %+v", cause, r)
	}
}
