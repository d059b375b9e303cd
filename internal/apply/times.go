package apply

// sameTime reports whether the file system's time stands for the release's:
// NTFS keeps 100 ns, most others 1 ns.
func sameTime(disk, want int64) bool {
	d := disk - want
	return d > -100 && d < 100
}

// nearTime is sameTime for a file system of any kind.
func nearTime(disk, want int64) bool {
	d := disk - want
	return d > -coarse && d < coarse
}
