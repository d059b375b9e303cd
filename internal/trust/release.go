package trust

// ReleaseNumber is the number of a release within its channel. Numbers start at
// 1 and only grow; 0 means none. JSON calls it release.
type ReleaseNumber uint64
