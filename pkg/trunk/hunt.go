package trunk

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// group is a group of one generation.
type group struct {
	name     string
	strategy string
	adaptive bool
	policy   Policy
	members  []member
	// fallback is where a call goes on when no member is left, or nil.
	fallback *group
	*turns
	// shares is room for choosing; mu guards it.
	shares []int64
	epoch  time.Time
}

// member is a trunk of a group. What choosing reads of it is next to each other: a group
// may have hundreds.
type member struct {
	*Trunk
	health *health
	quota  *quota
	limits limits
	realm  *realm
	weight int64
	// hash of the trunk's name.
	hash uint64
	*share
}

// turns is whose turn it is in a group, over all generations of the config that it is in.
type turns struct {
	mu sync.Mutex
	// next member, by its index; where turns go by weight the next one to be looked at.
	next int
	// clock of weighted turns, in their time.
	clock int64
}

// share is what a member has had and gets, over all generations.
type share struct {
	// due is when the member's next weighted turn comes; turns.mu guards it.
	due int64
	// multiplier of the weight in thousandths, less by what an adaptive group has decided.
	multiplier atomic.Int32
}

// full is a multiplier that changes nothing.
const full = 1000

// Policy says how a call goes on after a failed attempt (T7).
type Policy struct {
	// Tries is how many attempts there may be, 1 to 32.
	Tries int
	// Pause is the time between two, Total the longest from the first one's start to the
	// last one's; 0 is no bound.
	Pause, Total time.Duration
	sip, q850    *codeSet
}

// Retry reports whether another trunk may be tried after a final response: its status says
// so, or the Q.850 cause of its Reason header (0 if it has none). Redirections and what is
// final for the whole world (6xx) end the call, unless the config names the status.
func (p *Policy) Retry(sip, q850 int) bool {
	return p.sip.has(sip) || sip >= 400 && sip < 600 && q850 > 0 && p.q850.has(q850)
}

// What is retried unless the config says otherwise (T7). A platform fails over by itself, so
// that others are tried only when it is plain that nobody there has the call.
var (
	carrierSIP   = []CodeRange{{408, 408}, {500, 599}}
	platformSIP  = []CodeRange{{408, 408}, {503, 503}}
	carrierCause = []CodeRange{
		{1, 5}, {25, 25}, {27, 27}, {28, 28}, {31, 31}, {34, 34}, {38, 38}, {41, 41}, {42, 42}, {44, 44}, {46, 46},
		{62, 62}, {63, 63}, {79, 79}, {91, 91}, {96, 96}, {97, 97}, {99, 99}, {100, 100}, {103, 103},
	}
)

const defaultTries = 3

func newPolicy(c GroupConfig, kind string) Policy {
	sip, causes := carrierSIP, carrierCause
	if kind == Platform {
		sip, causes = platformSIP, nil
	}
	if c.RetrySIP != nil {
		sip = c.RetrySIP
	}
	if c.RetryQ850 != nil {
		causes = c.RetryQ850
	}
	return Policy{Tries: c.Tries, Pause: c.Pause, Total: c.Total, sip: newCodeSet(sip), q850: newCodeSet(causes)}
}

// follow goes on where a group of the former generation is.
func (g *group) follow(former *group) {
	shares := make(map[string]*share)
	if former != nil {
		g.turns = former.turns
		for i := range former.members {
			shares[former.members[i].Name()] = former.members[i].share
		}
		g.mu.Lock()
		defer g.mu.Unlock()
	} else {
		g.turns = new(turns)
	}
	fresh := make([]share, len(g.members))
	for i := range g.members {
		m := &g.members[i]
		if m.share = shares[m.Name()]; m.share == nil {
			m.share = &fresh[i]
			m.multiplier.Store(full)
			m.due = g.clock + g.step(m)/2
		}
	}
}

// maxTrunks of a table.
const maxTrunks = 1024

// Hunt is one call's way through the trunks of a group and its fallbacks. It belongs to one
// goroutine, and allocates nothing.
type Hunt struct {
	// group where the hunt is, nil at its end, and policy that of the last one.
	group  *group
	policy *Policy
	// begun is false until the first choice in group.
	begun bool
	// peek looks what a call would do, and takes nobody's turn.
	peek      bool
	emergency bool
	number    uint64
	// tries in group so far.
	tries int
	// last is the index of the member that was chosen last, in group.
	last int
	// tried trunks, and full ones that were counted as such.
	tried, counted trunkSet

	passed *Trunk
	why    Reason
	wait   time.Duration
}

// trunkSet has trunks by their index in the table.
type trunkSet struct {
	bits [maxTrunks / 64]uint64
	any  bool // false as long as there is none
}

func (s *trunkSet) add(t *Trunk) {
	s.bits[t.index/64] |= 1 << (t.index % 64)
	s.any = true
}

func (s *trunkSet) has(t *Trunk) bool { return s.any && s.bits[t.index/64]>>(t.index%64)&1 != 0 }

// noPolicy is that of a hunt that has nowhere to go.
var noPolicy = &Policy{sip: new(codeSet), q850: new(codeSet)}

// Hunt begins a call's way through a group, which has no candidates if it is not known.
// number is the called one, after normalisation: hash groups go by it, and emergency calls
// are held up by no limit.
func (t *Table) Hunt(group, number string) Hunt { return t.hunt(t.groups[group], number) }

// HuntTrunk begins the way of a call that one trunk alone may take.
func (t *Table) HuntTrunk(name, number string) Hunt {
	tr := t.byName[name]
	if tr == nil {
		return t.hunt(nil, number)
	}
	return t.hunt(&t.singles[tr.index], number)
}

func (t *Table) hunt(g *group, number string) Hunt {
	h := Hunt{policy: noPolicy, group: g, number: fnv(number), emergency: t.Emergency(number)}
	if g != nil {
		h.policy = &g.policy
	}
	return h
}

// Policy is that of the group where the hunt is.
func (h *Hunt) Policy() *Policy { return h.policy }

// Emergency reports whether the call is held up by no limit (T3).
func (h *Hunt) Emergency() bool { return h.emergency }

// Next hands out the next trunk that may take the call, as far as its state and its limits
// tell, and counts a try. Acquire has the last word. ok is false when no trunk is left, or
// no try. In-service members come before those that are just coming back and degraded ones,
// and a group, as often as its policy has it, before its fallback, which has tries of its own.
func (h *Hunt) Next(now time.Time) (t *Trunk, ok bool) {
	for h.group != nil {
		if i := h.choose(now); i >= 0 {
			t = h.group.members[i].Trunk
			h.begun, h.last = true, i
			h.tried.add(t)
			h.tries++
			return t, true
		}
		h.group, h.begun, h.last = h.group.fallback, false, 0
		if h.group != nil {
			h.policy, h.tries = &h.group.policy, 0
		}
	}
	return nil, false
}

// choose finds the next member of the group, or -1. Whoever only looks has tries without end.
func (h *Hunt) choose(now time.Time) int {
	if !h.peek && h.tries >= h.policy.Tries {
		return -1
	}
	return h.group.choose(h, now)
}

// Again counts one more try of the trunk that Next has handed out, at another of its
// targets. ok is false if there is no try left for that: the group's last one is kept for
// another of its trunks, if there is one. A carrier that is dead at all its targets must not
// use them up.
func (h *Hunt) Again(now time.Time) (ok bool) {
	if h.tries >= h.policy.Tries || h.tries+1 == h.policy.Tries && h.more(now) {
		return false
	}
	h.tries++
	return true
}

// more reports whether the group has another candidate. It takes nobody's turn.
func (h *Hunt) more(now time.Time) bool {
	ahead := *h
	ahead.peek = true
	return ahead.choose(now) >= 0
}

// Untried takes back the try that Next has counted: the trunk has refused the slot, or none was
// asked for. The hunt goes on without that trunk.
func (h *Hunt) Untried(t *Trunk, refused Refusal) {
	h.tries--
	h.pass(t, refused.Reason, refused.RetryAfter)
}

// PassedOver is the trunk that was nearest to being handed out and was not, and why; nil if
// none was passed over. If limits were the reason, RetryAfter is when the first of those that
// were passed over may take a call.
func (h *Hunt) PassedOver() (*Trunk, Refusal) { return h.passed, Refusal{h.why, h.wait} }

func (h *Hunt) pass(t *Trunk, why Reason, wait time.Duration) {
	if why > h.why {
		h.passed, h.why = t, why
	}
	if wait > 0 && (h.wait == 0 || wait < h.wait) {
		h.wait = wait
	}
}

// Tiers of candidates.
const (
	inService = iota
	// returning: in service again for a short while, and this call is not among its share.
	returning
	degraded

	tiers
	none = -1
)

// glance is one look over the members of a group.
type glance struct {
	*Hunt
	now time.Time
	// since the epoch.
	since time.Duration
	// realm that was looked at last, and what it refuses.
	realm   *realm
	refused Refusal
	// slowly: whoever is back gets its share of the calls by lot, since the strategy shares them
	// and does not go by weights.
	slowly bool
}

func (g *group) glance(h *Hunt, now time.Time) glance {
	return glance{Hunt: h, now: now, since: now.Sub(g.epoch), slowly: (g.strategy == RoundRobin || g.strategy == Hash) && !h.peek}
}

// at says in which tier a member is for the call, and how much of its weight counts, in
// thousandths.
func (g *glance) at(m *member) (tier, permille int) {
	if g.tried.has(m.Trunk) {
		return none, 0
	}
	// The rule, and who is out, need no more than a look at the word.
	switch word := m.health.word.Load(); word & wordMask {
	case wordUnusable:
		g.pass(m.Trunk, Unusable, 0)
		return none, 0
	case wordClosed:
		g.pass(m.Trunk, Closed, 0)
		return none, 0
	default:
		if tier, permille = inService, full; word != wordInService {
			tier, permille = m.health.usable(g.now)
			if g.slowly && tier == inService && g.lot(m) >= permille {
				tier = returning
			}
		}
	}
	if !g.emergency {
		if refused := g.limited(m); refused.Reason != NotRefused {
			g.refuse(m, refused)
			return none, 0
		}
	}
	return tier, permille
}

// lot of a member for the call, 0 to 999: a number keeps its own, so that in a hash group the
// numbers come back one by one and for good (T8).
func (g *glance) lot(m *member) int {
	if g.group.strategy == Hash {
		return int(mix(m.hash+g.number) % full)
	}
	return rand.IntN(full)
}

// refuse counts a member that has no slot for the call, once.
func (g *glance) refuse(m *member, refused Refusal) {
	g.pass(m.Trunk, refused.Reason, refused.RetryAfter)
	if !g.peek && !g.counted.has(m.Trunk) {
		g.counted.add(m.Trunk)
		m.totals[Out].refused[refused.Reason].Add(1)
	}
}

// limited says what limit is reached, and when both of the trunk's and its realm's will not be.
func (g *glance) limited(m *member) Refusal {
	if m.realm != g.realm {
		g.realm, g.refused = m.realm, m.realm.quota.open(&m.realm.limits, g.since)
		switch g.refused.Reason {
		case Full:
			g.refused.Reason = RealmFull
		case RateExceeded:
			g.refused.Reason = RealmRateExceeded
		}
	}
	if own := m.quota.open(&m.limits, g.since); own.Reason != NotRefused {
		own.RetryAfter = max(own.RetryAfter, g.refused.RetryAfter)
		return own
	}
	return g.refused
}

// choose finds the member that takes the call next, or -1. The first choice of a call takes
// the member's turn; the ones after a failure take nobody's, so that first choices alone
// keep to the weights.
func (g *group) choose(h *Hunt, now time.Time) int {
	if g.strategy == Priority { // nobody's turn
		return g.inOrder(h, now, 0)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch g.strategy {
	case Weighted:
		return g.byTurn(h, now)
	case LeastUsed:
		return g.leastUsed(h, now)
	case Random:
		return g.byChance(h, now)
	case Hash:
		return g.byNumber(h, now)
	}
	if h.begun {
		return g.inOrder(h, now, h.last+1)
	}
	i := g.inOrder(h, now, g.next)
	g.took(h, i)
	return i
}

// after is the index behind another one, around the list. A remainder would take longer than the
// look at a member.
func (g *group) after(i int) int {
	if i++; i >= len(g.members) {
		return 0
	}
	return i
}

// took puts the turn behind a member.
func (g *group) took(h *Hunt, i int) {
	if i >= 0 && !h.peek && !h.begun {
		g.next = g.after(i)
	}
}

// inOrder takes the first member of the best tier from a place on, around the list.
func (g *group) inOrder(h *Hunt, now time.Time, from int) int {
	look := g.glance(h, now)
	chosen := nobody
	i := from - 1
	for range g.members {
		i = g.after(i)
		tier, _ := look.at(&g.members[i])
		if tier == inService {
			return i
		}
		if tier >= 0 && chosen[tier] < 0 {
			chosen[tier] = i
		}
	}
	return first(chosen)
}

// survey fills shares with the weights of the members in the best tier that there is, 0 for
// the others, and returns their sum.
func (g *group) survey(h *Hunt, now time.Time) (sum int64) {
	look := g.glance(h, now)
	best := degraded
	for i := range g.members {
		m := &g.members[i]
		g.shares[i] = 0
		tier, permille := look.at(m)
		if tier < 0 || tier > best {
			continue
		}
		if tier < best {
			clear(g.shares[:i])
			best, sum = tier, 0
		}
		g.shares[i] = g.share(m, permille)
		sum += g.shares[i]
	}
	return sum
}

// weight of a member now, in thousandths.
func (g *group) weight(m *member) int64 {
	if !g.adaptive {
		return m.weight * full
	}
	return m.weight * int64(m.multiplier.Load())
}

// share of a member that permille of its weight counts of.
func (g *group) share(m *member, permille int) int64 {
	return max(1, g.weight(m)*int64(permille)/full)
}

const (
	// period is the time in which a member of weight w has w turns. The weights up to 25,
	// and round ones above, divide it, so that nothing is lost to rounding.
	period = 26771144400 * 20 // lcm(1, ..., 25)
	// lateClock is where the clock is put back, long before it overflows.
	lateClock = 1 << 60
)

// step from one weighted turn of a member to the next.
func (g *group) step(m *member) int64 { return period * full / max(1, g.weight(m)) }

// byTurn takes the member whose turn is due first: those of one with weight w come w times
// in a period, evenly. Any calls in a row that are as many as all weights together thus
// keep to the weights exactly. Whoever cannot be used when its turn comes begins anew, and
// does not catch up.
func (g *group) byTurn(h *Hunt, now time.Time) int {
	look := g.glance(h, now)
	chosen, due, steps := nobody, [tiers]int64{}, [tiers]int64{}
	for i := range g.members {
		m := &g.members[i]
		if chosen[inService] >= 0 && m.due >= due[inService] {
			continue // whatever its state
		}
		tier, permille := look.at(m)
		if tier < 0 || chosen[tier] >= 0 && m.due >= due[tier] {
			continue
		}
		chosen[tier], due[tier], steps[tier] = i, m.due, g.step(m)*full/int64(max(1, permille))
	}
	i := first(chosen)
	if i < 0 || h.begun || h.peek {
		return i
	}
	tier := slices.Index(chosen[:], i)
	g.turn(i, due[tier], steps[tier], now)
	return i
}

// turn gives a member its turn, and takes those that were due before.
func (g *group) turn(chosen int, due, step int64, now time.Time) {
	g.clock = max(g.clock, due)
	for i := range g.members {
		if m := &g.members[i]; m.due < due {
			m.due = g.clock + g.step(m)/2
		}
	}
	g.members[chosen].due = due + step
	for range min(reviewed, len(g.members)) {
		g.next = g.after(g.next)
		g.hasten(&g.members[g.next], now)
	}
	if g.clock > lateClock {
		for i := range g.members {
			g.members[i].due -= g.clock
		}
		g.clock = 0
	}
}

// reviewed is how many members are looked at in each turn, in turns: a look takes a division.
const reviewed = 8

// hasten has a member wait for no longer than for one turn: it may have had less weight when that
// was set.
func (g *group) hasten(m *member, now time.Time) {
	if step := g.step(m); m.due > g.clock+step {
		_, permille := m.health.usable(now)
		m.due = min(m.due, g.clock+step*full/int64(max(1, permille)))
	}
}

// leastUsed takes the member with the fewest calls for its weight; those with equally few
// take turns.
func (g *group) leastUsed(h *Hunt, now time.Time) int {
	look := g.glance(h, now)
	chosen, calls, weights := nobody, [tiers]int64{}, [tiers]int64{}
	i := g.next - 1
	for range g.members {
		i = g.after(i)
		m := &g.members[i]
		in, out := m.quota.active()
		used := int64(in + out + 1) // as it will be with this call
		if chosen[inService] >= 0 && used*weights[inService] >= calls[inService]*g.weight(m) {
			continue // whatever its state
		}
		tier, permille := look.at(m)
		if tier < 0 {
			continue
		}
		if w := g.share(m, permille); chosen[tier] < 0 || used*weights[tier] < calls[tier]*w {
			chosen[tier], calls[tier], weights[tier] = i, used, w
		}
	}
	i = first(chosen)
	g.took(h, i)
	return i
}

// nobody is chosen in any tier.
var nobody = [tiers]int{none, none, none}

// first is what was chosen in the best tier, or none.
func first(chosen [tiers]int) int {
	for _, i := range chosen {
		if i >= 0 {
			return i
		}
	}
	return none
}

// draws before all members are looked at. Mostly the first one can be used.
const draws = 4

// byChance takes any member, as likely as its weight says.
func (g *group) byChance(h *Hunt, now time.Time) int {
	if !h.peek {
		if i := g.draw(h, now); i >= 0 {
			return i
		}
	}
	sum := g.survey(h, now)
	switch {
	case sum == 0:
		return -1
	case h.peek:
		return heaviest(g.shares)
	}
	return at(g.shares, rand.Int64N(sum))
}

// draw takes members by their weights until one turns out to be in service; -1 if none does
// soon. One that has less than its weight now is put back as often as that is missing.
func (g *group) draw(h *Hunt, now time.Time) int {
	look := g.glance(h, now)
	sum := int64(0)
	for i := range g.members {
		g.shares[i] = g.weight(&g.members[i])
		sum += g.shares[i]
	}
	for range draws {
		n := rand.Int64N(sum)
		i := at(g.shares, n)
		if tier, permille := look.at(&g.members[i]); tier == inService && (permille == full || rand.IntN(full) < permille) {
			return i
		}
	}
	return -1
}

// at finds the share that covers n, of what they add up to.
func at(shares []int64, n int64) int {
	for i, w := range shares {
		if n -= w; n < 0 {
			return i
		}
	}
	return -1
}

func heaviest(shares []int64) (at int) {
	for i, w := range shares {
		if w > shares[at] {
			at = i
		}
	}
	return at
}

// byNumber is rendezvous hashing: each member has a lot by its name and the number, and the
// highest wins. What happens to other members moves no call (T8).
func (g *group) byNumber(h *Hunt, now time.Time) int {
	look := g.glance(h, now)
	chosen, highest := nobody, [tiers]uint64{}
	for i := range g.members {
		m := &g.members[i]
		lot := mix(m.hash ^ h.number)
		if chosen[inService] >= 0 && lot <= highest[inService] {
			continue // whatever its state
		}
		if tier, _ := look.at(m); tier >= 0 && (chosen[tier] < 0 || lot > highest[tier]) {
			chosen[tier], highest[tier] = i, lot
		}
	}
	return first(chosen)
}

// fnv is FNV-1a with 64 bits.
func fnv(text string) uint64 {
	sum := uint64(14695981039346656037)
	for i := range len(text) {
		sum = (sum ^ uint64(text[i])) * 1099511628211
	}
	return sum
}

// mix spreads each bit over all (the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
