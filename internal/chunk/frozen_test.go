package chunk

// The chunks of noise(2, 2 MiB) under the default parameters, in bytes, and
// the SHA-256 of their SHA-256s. These never change.
var frozenSizes = []int{
	143243, 235085, 142441, 142701, 133433, 161652, 166122,
	132804, 136797, 79232, 170862, 149924, 209853, 93003,
}

const frozenSum = "e5bdef53cdf85f2deeeddb138b53adaa8cd3fac957528e7786353689b0d7f5c7"
