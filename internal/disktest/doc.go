// Package disktest mounts small file systems for tests of full and vanishing disks, and sets the attributes of files.
package disktest
