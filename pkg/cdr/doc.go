// Package cdr keeps call detail records: one JSON object a line, in an append-only file
// that is rotated by size and is complete up to the last full line after any crash (O3).
package cdr
