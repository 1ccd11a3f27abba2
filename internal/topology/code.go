package topology

// Code names a kind of fault. PW00.. is the text and its YAML, PW01.. the shape
// of single values, PW02.. what values mean together, PW03.. warnings.
type Code string

const (
	CodeTooLarge      Code = "PW0001"
	CodeEncoding      Code = "PW0002"
	CodeEmpty         Code = "PW0003"
	CodeTab           Code = "PW0004"
	CodeSyntax        Code = "PW0005"
	CodeDocuments     Code = "PW0006"
	CodeIndentation   Code = "PW0007"
	CodeDuplicateKey  Code = "PW0008"
	CodeMergeKey      Code = "PW0009"
	CodeAlias         Code = "PW0010"
	CodeTag           Code = "PW0011"
	CodeKeyKind       Code = "PW0012"
	CodeDepth         Code = "PW0013"
	CodeUnclosed      Code = "PW0014"
	CodeColon         Code = "PW0015"
	CodeTooManyErrors Code = "PW0016"

	CodeUnknownKey Code = "PW0101"
	CodeMissingKey Code = "PW0102"
	CodeWrongKind  Code = "PW0103"
	CodeNotOneOf   Code = "PW0105"
	CodeNumber     Code = "PW0106"
	CodeName       Code = "PW0107"
	CodeAmbiguous  Code = "PW0108"
	CodeAddress    Code = "PW0109"
	CodeDuration   Code = "PW0110"
	CodeRate       Code = "PW0111"
	CodeInterface  Code = "PW0112"
	CodeEndID      Code = "PW0113"
	CodeNoValue    Code = "PW0114"
	CodeVersion    Code = "PW0115"
	CodeRouterID   Code = "PW0116"
	CodeCount      Code = "PW0117"
	CodePath       Code = "PW0118"
	CodeText       Code = "PW0119"

	CodeUnknownSite    Code = "PW0201"
	CodeUnknownTunnel  Code = "PW0202"
	CodeUnknownBridge  Code = "PW0203"
	CodeVLANClash      Code = "PW0204"
	CodeInterfaceClash Code = "PW0205"
	CodeEndIDClash     Code = "PW0206"
	CodeAddressClash   Code = "PW0207"
	CodeRouterIDClash  Code = "PW0208"
	CodeDeviceClash    Code = "PW0209"
	CodeNameClash      Code = "PW0210"
	CodeSameSite       Code = "PW0211"
	CodeFamilies       Code = "PW0212"
	CodeNotMember      Code = "PW0213"
	CodeEnds           Code = "PW0214"
	CodeExclusive      Code = "PW0215"
	CodeExternalBridge Code = "PW0216"
	CodeBridgeAsPort   Code = "PW0217"
	CodeDuplicateItem  Code = "PW0218"
	CodeSecretFile     Code = "PW0219"
	CodeSecret         Code = "PW0220"
	CodeNeedsSecret    Code = "PW0221"
	CodeDynamic        Code = "PW0222"
	CodeForeign        Code = "PW0223"
	CodeUnknownClass   Code = "PW0224"
	CodeTags           Code = "PW0225"
	CodeHub            Code = "PW0226"
	CodeRateSum        Code = "PW0227"
	CodeUnshaped       Code = "PW0228"
	CodeUnderlay       Code = "PW0229"
	CodeRedundancy     Code = "PW0230"
	CodeOtherTags      Code = "PW0231"
	CodeStatic         Code = "PW0232"
	CodeSteer          Code = "PW0233"
	CodeShaper         Code = "PW0234"

	CodeUnusedSite   Code = "PW0301"
	CodeUnusedTunnel Code = "PW0302"
	CodeSmallMTU     Code = "PW0303"
	CodeMixedBridge  Code = "PW0304"
	CodeOpenSecret   Code = "PW0305"
)

// codeMeaning is a code and what it stands for.
type codeMeaning struct {
	code    Code
	meaning string
}

// codes are all codes, in order.
var codes = []codeMeaning{
	{CodeTooLarge, "the file is larger than 1 MiB"},
	{CodeEncoding, "the file is not UTF-8 text, or has a character that YAML does not allow"},
	{CodeEmpty, "there is nothing in the file"},
	{CodeTab, "a tab where YAML wants spaces"},
	{CodeSyntax, "not YAML, for another reason than those below"},
	{CodeDocuments, "more than one YAML document in the file"},
	{CodeIndentation, "a line is indented like none that it could belong to"},
	{CodeDuplicateKey, "a key is there twice"},
	{CodeMergeKey, "a merge key (`<<`)"},
	{CodeAlias, "an alias without its anchor, within its own anchor, or expanding to too much"},
	{CodeTag, "a YAML tag (`!!str`, `!name`)"},
	{CodeKeyKind, "a key that is not a single word"},
	{CodeDepth, "nested too deeply"},
	{CodeUnclosed, "a quote or a bracket that is not closed, or closed by the wrong one"},
	{CodeColon, "a colon, or the space after it, is missing or too much"},
	{CodeTooManyErrors, "the rest of the errors is not shown"},

	{CodeUnknownKey, "an unknown key"},
	{CodeMissingKey, "a key that has to be there is not"},
	{CodeWrongKind, "a list where a mapping has to be, and the like"},
	{CodeNotOneOf, "a word that is not one of those allowed"},
	{CodeNumber, "not a whole number, or out of range"},
	{CodeName, "not a name: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`"},
	{CodeAmbiguous, "text without quotes that YAML readers take for different things"},
	{CodeAddress, "not an address that a tunnel can end at"},
	{CodeDuration, "not a time like `10s`, or out of range"},
	{CodeRate, "not a rate like `10mbit`"},
	{CodeInterface, "not a name that an interface or a bridge can have"},
	{CodeEndID, "not an end ID"},
	{CodeNoValue, "a key without a value"},
	{CodeVersion, "a file of another kind or version"},
	{CodeRouterID, "not a router ID"},
	{CodeCount, "too few or too many entries"},
	{CodePath, "not an absolute path, or too long"},
	{CodeText, "text that is not of the form it has to be of"},

	{CodeUnknownSite, "a site that is not among `sites`"},
	{CodeUnknownTunnel, "a tunnel that is not among `tunnels`"},
	{CodeUnknownBridge, "a bridge that is not among the site's `bridges`"},
	{CodeVLANClash, "two pseudowires claim one VLAN"},
	{CodeInterfaceClash, "an interface is used twice"},
	{CodeEndIDClash, "two pseudowires of one control connection have one end ID"},
	{CodeAddressClash, "two sites have one address"},
	{CodeRouterIDClash, "two sites have one router ID"},
	{CodeDeviceClash, "two pseudowires would have one device name"},
	{CodeNameClash, "a pseudowire and a network have one name"},
	{CodeSameSite, "a tunnel between a site and itself, or a pair of it"},
	{CodeFamilies, "a tunnel between IPv4 and IPv6"},
	{CodeNotMember, "a pseudowire ends at a site that its tunnel does not reach, or a pair is of sites that no tunnel joins"},
	{CodeEnds, "a pseudowire with other than two ends, or a network with fewer"},
	{CodeExclusive, "two keys of which only one can be there"},
	{CodeExternalBridge, "an external bridge is to be changed"},
	{CodeBridgeAsPort, "a bridge is used as an interface"},
	{CodeDuplicateItem, "an entry is in a list twice"},
	{CodeSecretFile, "a secret's file cannot be read"},
	{CodeSecret, "what is in a secret's file cannot be a secret"},
	{CodeNeedsSecret, "something that takes a secret, without one"},
	{CodeDynamic, "a tunnel between two sites with dynamic addresses"},
	{CodeForeign, "something that a foreign site cannot have, or that only a foreign one can"},
	{CodeUnknownClass, "a class that is not among `classes`"},
	{CodeTags, "an Ethernet VLAN pseudowire with a VLAN at one end only"},
	{CodeHub, "a hub that is not one of the network's sites"},
	{CodeRateSum, "rates that are guaranteed and do not fit into a ceiling, a pair or a link"},
	{CodeUnshaped, "something that takes a rate or a ceiling, without either"},
	{CodeUnderlay, "an underlay that the site does not have, or one of several that is not chosen"},
	{CodeRedundancy, "the tunnels of a redundancy are not those of the pseudowire"},
	{CodeOtherTags, "the frames of a pseudowire have a tag on the way at one end and none at the other"},
	{CodeStatic, "a static tunnel or pseudowire that lacks an end or says what only signalling can"},
	{CodeSteer, "a rule of `steer` that no frame gets to or matches, that names another tunnel, or too many; or several tunnels without it"},
	{CodeShaper, "a guarantee or a limit of several tunnels that departure times (`shaper: edt`) do not keep"},

	{CodeUnusedSite, "no tunnel reaches the site"},
	{CodeUnusedTunnel, "no pseudowire uses the tunnel"},
	{CodeSmallMTU, "an MTU too small for IPv6"},
	{CodeMixedBridge, "a bridge that does not filter VLANs carries one pseudowire with a VLAN and one without"},
	{CodeOpenSecret, "everybody can read or write a secret's file"},
}
