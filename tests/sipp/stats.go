package sipp

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Stats are SIPp's counts since its start.
type Stats struct {
	Created, Successful, Failed uint64
	// Current calls, when it was written.
	Current uint64
	// Retransmissions by SIPp, and messages that fitted nowhere.
	Retransmissions, OutOfCall uint64
}

// parseStats reads the last whole line of a -trace_stat file.
func parseStats(data []byte) (Stats, error) {
	// SIPp may be in the middle of a line.
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	r := csv.NewReader(bytes.NewReader(data))
	r.Comma = ';'
	r.FieldsPerRecord = -1
	r.LazyQuotes = true
	names, err := r.Read()
	if errors.Is(err, io.EOF) {
		return Stats{}, nil
	}
	if err != nil {
		return Stats{}, fmt.Errorf("sipp statistics: %w", err)
	}
	var last []string
	for {
		line, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Stats{}, fmt.Errorf("sipp statistics: %w", err)
		}
		last = line
	}
	if last == nil {
		return Stats{}, nil
	}
	var s Stats
	fields := map[string]*uint64{
		"TotalCallCreated":   &s.Created,
		"SuccessfulCall(C)":  &s.Successful,
		"FailedCall(C)":      &s.Failed,
		"CurrentCall":        &s.Current,
		"Retransmissions(C)": &s.Retransmissions,
		"OutOfCallMsgs(C)":   &s.OutOfCall,
	}
	for i, name := range names {
		field := fields[name]
		if field == nil || i >= len(last) {
			continue
		}
		if *field, err = strconv.ParseUint(last[i], 10, 64); err != nil {
			return Stats{}, fmt.Errorf("sipp statistics: %s: %w", name, err)
		}
		delete(fields, name)
	}
	if len(fields) > 0 {
		return Stats{}, fmt.Errorf("sipp statistics: %d columns are missing: is this SIPp 3.6 or 3.7?", len(fields))
	}
	return s, nil
}
