package main

// mixed lists the Debian packages of the corpus. Packages with a security or point-release update are included in two
// versions, so the update from v1 to v2 is one that Debian's users received.
var mixed = []string{
	"git", "git-man", "vim-runtime", "perl-modules-5.36", "libpython3.11-stdlib", "python3.11-doc", "libpython3.11-dev",
	"samba-libs", "samba-dev", "postgresql-15", "postgresql-doc-15", "mariadb-server-core", "php8.2-common", "php8.2-cli",
	"ruby3.1", "libruby3.1", "ruby3.1-doc", "apache2-doc", "apache2-bin", "openjdk-17-jre-headless",
	"openjdk-17-jdk-headless", "openjdk-17-doc", "firefox-esr", "thunderbird", "chromium", "chromium-common",
	"libreoffice-core", "libreoffice-common", "libreoffice-help-en-us", "libreoffice-help-de", "libwebkit2gtk-4.1-0",
	"libllvm14", "qemu-system-x86", "qemu-system-data", "wireshark-common", "imagemagick-6-doc",
	"linux-source-6.1", "linux-doc-6.1", "fonts-noto-core", "golang-1.19-src",
	"libboost1.81-dev", "libboost1.74-dev", "node-typescript", "libjs-mathjax", "gimp-data", "inkscape",
	"libwine", "clang-14", "rustc", "libstd-rust-dev",
}

// few lists the packages of -quick.
var few = []string{"git", "git-man", "libkrad0", "apache2-utils", "iperf3", "libass9"}
