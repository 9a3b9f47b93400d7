//go:build !race

package app

// slowdown is how many times longer things may take: see race_test.go.
const slowdown = 1
