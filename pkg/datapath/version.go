package datapath

// ABI numbers the meaning of what is pinned, for status. An engine of another one copies the
// flows into maps of its own.
const ABI = abi
