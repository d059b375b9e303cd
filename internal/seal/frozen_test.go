package seal

// The values that format 1 derives from key 01…01, repository 0200…00 and
// salt 07…07. They never change: a program that derives other values cannot
// read existing repositories.
const (
	frozenName   = "6a8f786e53a0daf17621ab49d6e83784"
	frozenID     = "474a62a45c9defb2f88cef65d6c99e697fbf8e74dc3f3e6b420a73b2a746e610"
	frozenCheck  = "043d51e220a55dc884dab1a544e0a230"
	frozenSealed = "312393e16973bd1c45a89cf187f6a20c02b43c"
)
