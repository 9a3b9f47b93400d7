package media

// Finite is what a number of a record goes through.
var Finite = finite

// Look is one round of what Run does every second.
func (m *Media) Look() error { return m.look(new(batch)) }
