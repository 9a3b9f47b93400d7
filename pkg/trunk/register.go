package trunk

import "time"

// Register lets one REGISTER request of the trunk in, or says how long the next one has to
// wait (T5). What was let in counts over reloads; what was refused is counted by its Reason.
func (t *Trunk) Register(now time.Time) (wait time.Duration, ok bool) {
	l := newLimits(0, t.config.MaxRegisterRate)
	if wait, ok = t.registers.take(&l, now.Sub(t.epoch)); !ok {
		t.totals[In].refused[RegisterRateExceeded].Add(1)
	}
	return wait, ok
}

// LimitsRegister reports whether Register ever refuses.
func (t *Trunk) LimitsRegister() bool { return !t.config.MaxRegisterRate.IsZero() }
