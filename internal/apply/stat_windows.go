package apply

// keepsModes: Windows has no permission bits.
const keepsModes = false

// coarse is how exactly a file system may keep a time, in nanoseconds: FAT
// keeps two seconds.
const coarse = 2e9
