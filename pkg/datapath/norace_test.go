//go:build !race

package datapath

const raceDetector = false
