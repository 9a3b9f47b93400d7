package trunk

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// many trunks in a realm with limits, with limits of their own.
func many(t testing.TB, n int, group GroupConfig) *Table {
	t.Helper()
	trunks := make([]Config, n)
	group.Name = "g"
	for i := range trunks {
		trunks[i] = goodConfig(fmt.Sprintf("carrier-%03d", i), fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250))
		trunks[i].MaxCalls, trunks[i].MaxRate = 1000, rate("100000/1s")
		group.Members = append(group.Members, Member{trunks[i].Name, 1 + i%7})
	}
	table, err := New(Configs{
		Trunks: trunks, Groups: []GroupConfig{group}, Realms: []Limit{{"outside", 100_000, rate("1000000/1s")}}, Emergency: []string{"112"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func rate(text string) call.Rate {
	r, err := call.ParseRate(text)
	if err != nil {
		panic(err)
	}
	return r
}

// T2: choosing among 200 members takes less than 2 µs and allocates nothing, whatever the
// strategy. trunk_select_ns and trunk_select_allocs are those of the worst one.
func BenchmarkSelect200(b *testing.B) {
	tables, times := make([]*Table, len(strategies)), make([][]float64, len(strategies))
	allocs := 0.0
	for i, strategy := range strategies {
		tables[i] = many(b, 200, GroupConfig{Strategy: strategy, Tries: 3, Adaptive: weighs(strategy)})
		allocs = max(allocs, testing.AllocsPerRun(100, func() { choose(b, tables[i]) }))
	}
	b.ReportAllocs() // those of taking the times among them
	for b.Loop() {
		for i, table := range tables {
			begun := time.Now()
			for range batch {
				choose(b, table)
			}
			times[i] = append(times[i], float64(time.Since(begun))/batch)
		}
	}
	worst := 0.0
	for i, strategy := range strategies {
		slices.Sort(times[i])
		// The median of batches: what else the machine does hits few of them.
		median := times[i][len(times[i])/2]
		b.ReportMetric(median, "trunk_select_"+strategy+"_ns")
		worst = max(worst, median)
	}
	b.ReportMetric(worst, "trunk_select_ns")
	b.ReportMetric(allocs, "trunk_select_allocs")
}

// batch of choices that are timed together.
const batch = 32

func choose(t testing.TB, table *Table) {
	h := table.Hunt("g", "+4930123456")
	if _, ok := h.Next(time.Now()); !ok {
		t.Fatal("no member")
	}
}
