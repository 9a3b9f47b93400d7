package admin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// ErrUnknownTrunk means that there is no trunk of that name.
var ErrUnknownTrunk = errors.New("there is no such trunk")

// TrunkStatus is one trunk.
type TrunkStatus struct {
	Name  string `json:"name"`
	Realm string `json:"realm"`
	// Kind is "platform" or "carrier".
	Kind string `json:"kind"`
	// State is a word, e.g. "in-service", since Since; Reason says why it is another, or is empty.
	State  string    `json:"state"`
	Since  time.Time `json:"since,omitzero"`
	Reason string    `json:"reason,omitempty"`
	// Admin is the state that the config or an operator wants.
	Admin string `json:"admin"`
	// Removed trunks are not in the config any more: their running calls end by themselves.
	Removed bool `json:"removed,omitempty"`
	// Share of the trunk's weight that counts, in percent: it grows while the trunk returns.
	Share int `json:"share_percent"`
	// Changes of the state since start.
	Changes uint64 `json:"state_changes"`
	// MaxCalls limits both directions together; 0 is no limit.
	MaxCalls int `json:"max_calls"`
	// MaxRate limits new calls of each direction, e.g. "40/5s"; empty is no limit.
	MaxRate string         `json:"max_rate,omitempty"`
	In      TrunkDirection `json:"in"`
	Out     TrunkDirection `json:"out"`
	// Targets are the peer's addresses.
	Targets []TrunkTarget `json:"targets,omitempty"`
	// Names are the targets that are looked up by DNS.
	Names []TrunkName `json:"names,omitempty"`
	// RefusedTargets are addresses that DNS leads to and that are not used, with the reason.
	RefusedTargets []string `json:"refused_targets,omitempty"`
}

// TrunkDirection counts a trunk's calls of one direction: In comes from the trunk, Out
// goes to it. Active is now, the others but Recent are since start.
type TrunkDirection struct {
	Active   int    `json:"active"`
	Attempts uint64 `json:"attempts"`
	Answers  uint64 `json:"answers"`
	Failures uint64 `json:"failures"`
	// Outcomes counts what became of attempts, by class, e.g. "busy".
	Outcomes map[string]uint64 `json:"outcomes,omitempty"`
	// Refused counts calls that limits or the trunk's state held up, by reason, and as
	// "register-rate" REGISTER requests.
	Refused map[string]uint64 `json:"refused,omitempty"`
	Recent  TrunkWindow       `json:"recent"`
}

// TrunkWindow is what happened in the trunk's health_window. Ratios and means are 0 if
// there was nothing to take them over.
type TrunkWindow struct {
	Attempts uint32 `json:"attempts"`
	// Classes counts the attempts whose outcome is known, by class.
	Classes map[string]uint32 `json:"classes,omitempty"`
	// ASR and NER are in percent of those (ITU-T E.425).
	ASR float64 `json:"asr_percent"`
	NER float64 `json:"ner_percent"`
	// PDDMS is the mean post-dial delay, ACDMS the mean duration of calls that ended.
	PDDMS float64 `json:"pdd_ms"`
	ACDMS float64 `json:"acd_ms"`
	// MOS is the mean over calls that ended, 1 to 4.5.
	MOS float64 `json:"mos"`
}

// TrunkTarget is one address of a peer.
type TrunkTarget struct {
	Address netip.AddrPort `json:"address"`
	State   string         `json:"state"`
	Reason  string         `json:"reason,omitempty"`
	Since   time.Time      `json:"since,omitzero"`
	// Probes that have an outcome, and Failures among them, since start.
	Probes   uint64 `json:"probes"`
	Failures uint64 `json:"failures"`
	// RoundTripMS of the last probe that was answered; 0 is none.
	RoundTripMS float64 `json:"round_trip_ms"`
	// Next probe.
	Next time.Time `json:"next,omitzero"`
}

// TrunkName is a target that is a name.
type TrunkName struct {
	Target string `json:"target"`
	// State is a word, Text a line for people.
	State string `json:"state"`
	Text  string `json:"text"`
}

// GroupStatus is one group of trunks.
type GroupStatus struct {
	Name     string `json:"name"`
	Strategy string `json:"strategy"`
	Adaptive bool   `json:"adaptive"`
	// Fallback is the group that is tried when no member is left.
	Fallback string        `json:"fallback,omitempty"`
	Members  []GroupMember `json:"members"`
}

// GroupMember is a trunk of a group.
type GroupMember struct {
	Trunk  string `json:"trunk"`
	Weight int    `json:"weight"`
	// Multiplier is what an adaptive group makes of the weight, in thousandths.
	Multiplier int `json:"multiplier"`
	// Share of the first choices that the member gets now, in percent, where the strategy
	// goes by weights.
	Share float64 `json:"share_percent"`
	State string  `json:"state"`
	// Active calls of the trunk, both directions.
	Active int `json:"active"`
}

// Groups returns all groups in the config's order.
func (c *Client) Groups(ctx context.Context) ([]GroupStatus, error) {
	return get[[]GroupStatus](ctx, c, "groups")
}

// trunkState is the body of a change of a trunk's state.
type trunkState struct {
	State string `json:"state"`
}

// SetTrunk takes a trunk in or out of service, or has it drain, and returns it as it is then.
func (c *Client) SetTrunk(ctx context.Context, name, state string) (TrunkStatus, error) {
	return post[TrunkStatus](ctx, c, "change the state of trunk "+name, "trunks/"+url.PathEscape(name)+"/state", trunkState{state})
}

func (s *Server) groups(w http.ResponseWriter, _ *http.Request) {
	s.reply(w, http.StatusOK, orEmpty(s.sources.Groups()))
}

// maxRequest bounds the body of a request, in bytes.
const maxRequest = 4 << 10

func (s *Server) setTrunk(w http.ResponseWriter, r *http.Request) {
	var wanted trunkState
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	body.DisallowUnknownFields()
	if err := body.Decode(&wanted); err != nil {
		s.fail(w, http.StatusBadRequest, `give a body like {"state":"draining"}: `+err.Error())
		return
	}
	t, err := s.sources.SetTrunk(r.PathValue("name"), wanted.State)
	switch {
	case errors.Is(err, ErrUnknownTrunk):
		s.fail(w, http.StatusNotFound, err.Error())
	case err != nil:
		s.fail(w, http.StatusBadRequest, err.Error())
	default:
		s.reply(w, http.StatusOK, t)
	}
}
