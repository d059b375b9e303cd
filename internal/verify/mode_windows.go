package verify

// keepsModes: Windows has no permission bits.
const keepsModes = false
