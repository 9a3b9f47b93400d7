package datapath
import ("testing";"time";"fmt")
func TestZZTime(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	shut(t, w.start(t, cfg))
	last := time.Now()
	cfg.step = func(n string) { fmt.Println(n, time.Since(last)); last = time.Now() }
	for range 3 {
	last = time.Now()
	e := w.start(t, cfg)
	fmt.Println("open", time.Since(last)); last = time.Now()
	shut(t, e)
	fmt.Println("close", time.Since(last))
	}
	w.unload(t, cfg.Pins)
}
