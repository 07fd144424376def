"""Every bound of the protocol, with its unit and its reason.

Knows numbers only. Anything a stranger can fill or lengthen is bounded by a name in this file.
"""

# --- bytes in messages -------------------------------------------------------------------------------------------
EVENT_BYTES_MAX = 16 * 1024  # one signed event; a settlement of 60 tasks by two nodes each fits
ADVERT_BYTES_MAX = 4 * 1024  # one Kademlia record, cheap to republish; the fullest advert fits
CLAIM_BYTES_MAX = 512  # one claim on a topic that everybody hears
DESCRIPTOR_BYTES_MAX = 64 * 1024  # a resolved job descriptor, held in memory by every worker it interests
MANIFEST_BYTES_MAX = 160 * 1024  # the genesis manifest of a network: 256 members with the longest names
RESULT_BYTES_MAX = 1280 * 1024  # a result manifest: 4,096 files of 255-byte names
REQUEST_BYTES_MAX = 512 * 1024  # one request on a stream: an opening batch or an event push
REPLY_BYTES_MAX = 1024 * 1024  # one reply: a page of events or of the frontier
GOSSIP_BYTES_MAX = 64 * 1024  # one gossip batch; the mesh copies it about five times
NOTE_CHARS_MAX = 200  # free text in an event: a reason a person reads in a table
NAME_CHARS_MAX = 64  # job labels, node names, numerical classes

# --- counts in messages ------------------------------------------------------------------------------------------
TASKS_MAX = 10_000  # tasks of one job: the owner keeps each in memory
# Tasks or feeds in one list. So many always fit a commit, an ack and a note; a seal, settle or void, whose entries grow
# with the executions of a task, is full when its bytes are.
ENTRIES_MAX = 200
EXECUTIONS_MAX = 16  # executions of one task over all its rounds
ADDRESSES_MAX = 8  # addresses a node may advertise
ENGINES_MAX = 4  # engines a node may advertise; each is a bucket of the DHT
GPUS_MAX = 16  # accelerators a node may advertise; one that has more says so by its tier
EVENTS_PER_PAGE = 1024  # events in one sync reply, besides REPLY_BYTES_MAX
FRONTIER_PER_PAGE = 8192  # feeds in one frontier reply
BLOBS_PER_QUESTION = 1024  # content hashes in one "do you hold these"
DEPTH_MAX = 6  # nesting of arrays in anything signed

# --- tables a stranger could fill --------------------------------------------------------------------------------
FEEDS_MAX = 100_000  # feeds kept; beyond, new strangers are refused
ORPHANS_MAX = 4_096  # events waiting for their predecessor; oldest dropped, sync brings them again
ADVERTS_MAX = 4_096  # adverts remembered; the one expiring first is dropped
CLAIMS_PER_OFFER_MAX = 512  # claimants remembered for one offer; later ones are told to come again
OFFERS_OPEN_MAX = 4_096  # open offers a worker looks at; later ones wait for one to close
EXECUTIONS_HELD_MAX = 1_024  # executions a worker has promised and not finished
PEERS_MAX = 200  # connections

# --- time (milliseconds; durations from receipt, never wall clock) -------------------------------------------------
LEASE_MS = 60_000  # an assignment dies when it is not renewed this long
RENEW_MS = 20_000  # a worker renews three times within a lease
CLAIM_VALID_MS = 120_000  # a claim is renewed well before
REQUEST_MS = 10_000  # one request and its reply on a direct stream
SYNC_MS = 1_000  # one round of anti-entropy with one neighbour
ADVERT_VALID_MS = 3_600_000  # an advert unheard of for an hour is forgotten

# --- host -----------------------------------------------------------------------------------------------------------
HANDSHAKES_MAX = 64  # half-open connections in all
HANDSHAKES_PER_ADDRESS = 16  # half-open connections from one IP: one address must not keep the others out
STREAMS_PER_PEER = 256  # yamux blocks for ever beyond
REQUESTS_PER_PEER = 16  # requests one peer may have in work here; the next is answered busy
REQUESTS_MAX = 128  # the same for all peers together
