//go:build race

package app

// slowdown is how many times longer things may take under the race detector.
const slowdown = 10
