/*
 * The lease and hand-over protocol: two relays share two lanes of one table, before one broker.
 *
 * Beside the code: outbox_relay/relay/lease.py, keeper.py, decide.py (TrustWindow), dispatch.py and
 * marker.py, and the statements of outbox_relay/store/leases.py and statements.py.
 *
 * Rows 1 and 2 are of one key, in lane 1. With LONE_ROW row 0 is in lane 0, which is empty otherwise. Lease
 * rows 0 and 1 are the lanes, 2 and 3 the slots of the relays. A term's nonce is its number: no two are alike.
 *
 * Time is counted in ticks: leases run out on the database's clock, trust on the relays'. A relay that is
 * well does what is due before the next tick; only a fault makes it late. There are up to FAULTS of them: a
 * crash, a pause of any length, a database out of reach for any length, a request or an answer of the
 * broker that is lost or comes late. Whatever fails comes back, perhaps very late. Besides, the broker may
 * reject REJECTIONS records.
 *
 * A statement that marks has two steps, since at READ COMMITTED it is so: it tests the term when it begins;
 * then it may wait for the lock of a row, and goes on with what the row is by then.
 *
 * With -D of one of these the relay is wrong, and the search must find it out:
 *   MARK_BEFORE_ACK     a row is marked as soon as it is handed to the broker
 *   MARK_ANY_STATUS     a mark does not ask for status = 0
 *   MARK_ANY_TERM       a mark does not ask for the term
 *   NO_TRUST_WINDOW     a relay publishes until somebody tells it that its lease is lost
 *   TRUST_FROM_ANSWER   trust is counted from the end of a renewal
 *   CLOCK_THAT_STOPS    trust is counted on a clock that stands still while the relay is suspended
 *   CURSOR_KEPT         a lane that is gained is read from where it was once left
 *   GIVE_UNSETTLED      a lane is free while something of it is under way
 *   OVERTAKE            the next row of a key does not wait for the ack of the one before
 *   NO_EXPIRY           a lease never runs out
 */

#ifndef FAULTS
#define FAULTS 2
#endif
#ifndef REJECTIONS
#define REJECTIONS 1
#endif

/* In ticks. A batch is settled before the second one: the order within a tick is open, hence not 1. */
#define LEASE 2
#define DEADLINE 2

#define ROWS 3
#define lane(row) ((row) > 0)
#define slot(r) (2 + (r))

/* The status of a row. */
#define PENDING 0
#define PRODUCED 1
#define DEAD 2

/* Where a relay has a row. */
#define OUT 0		/* not in memory */
#define WAITS 1		/* read, not published */
#define SENT 2		/* under way */
#define YES 3		/* acked, and the relay has not seen it */
#define NO 4		/* rejected, likewise */
#define LOST 5		/* no answer will come: the deadline makes it unknown */
#define ACKED 6		/* to be marked */
#define REFUSED 7	/* to be a dead letter, before its key goes on */

typedef Lease { byte nonce; byte left }

typedef Relay {
	bool down, paused, cut;
	bool stalled;	/* it was suspended, and has not renewed since */
	byte term;	/* 0: it stands by */
	byte trust;	/* ticks until the lease may pass on */
	byte renewing;	/* a renewal that meets a fault is 1: on its way, 2: done, its answer is on its way */
	byte age;	/* ticks since it was asked for */
	bool mine[2];	/* Holding.lease.lanes */
	bool giving;	/* lane 1 is in Holding.giving */
	bool handing;	/* lane 1 is in Keeper._handing_back */
	bool past[2];	/* the cursor is past the rows of the lane */
	byte at[ROWS];	/* where each row is */
	bool soon[2];	/* the deadline of what is under way of a lane is still to come */
	bool marking;	/* a statement has begun, and its term was good then */
	bool orphan;	/* its term is over */
	bool dead;	/* it makes a dead letter */
	bool rows[ROWS]
}

Lease lease[4];
Relay relay[2];
byte status[ROWS];
byte copies[ROWS];	/* how often the broker holds a row */
bool late[ROWS];	/* a request that nobody waits for any more may still arrive */
byte faults;
byte rejections;
byte terms;

#define R relay[r]
#define awake(r) (!relay[r].down && !relay[r].paused)
#define acts(r) (awake(r) && relay[r].term)
#define asks(r) (acts(r) && !relay[r].cut)
#define row_under_way(r, row) (relay[r].at[row] >= SENT && relay[r].at[row] <= LOST)
#define under_way(r, l) ((l) == 0 -> row_under_way(r, 0) : row_under_way(r, 1) || row_under_way(r, 2))
#define settled(r, l) ((l) == 0 -> relay[r].at[0] == OUT : relay[r].at[1] == OUT && relay[r].at[2] == OUT)
#define any_is(r, x) (relay[r].at[0] == x || relay[r].at[1] == x || relay[r].at[2] == x)
#define reads(r, l) (relay[r].mine[l] && !((l) == 1 && relay[r].giving))
#define other_lives(r) (lease[slot(1-(r))].left > 0)
#define has(l, n) (lease[l].nonce == (n))

/* TrustWindow.may_publish */
#ifdef NO_TRUST_WINDOW
#define may_publish(r) true
#else
#define may_publish(r) (relay[r].trust >= DEADLINE)
#endif

/* A batch at a time, and a key waits for its dead letter. */
#ifdef OVERTAKE
#define may_follow(r) true
#else
#define may_follow(r) (relay[r].at[1] == OUT || relay[r].at[1] == ACKED)
#endif

/* What a relay that is well has still to do before the clocks go on. */
#define batch_due(r, l) (under_way(r, l) && !relay[r].soon[l])
#define renewal_due(r) (asks(r) && (relay[r].trust < LEASE || lost_any(r)))
#define due(r) (renewal_due(r) || (awake(r) && (batch_due(r, 0) || batch_due(r, 1))))
/* Before each tick it renewed: its lease and its trust are what they were. */
#define renews(r, l) (asks(r) && has(l, relay[r].term))

/* The fence names the lanes that the relay believes to own. */
#define named(r, l) relay[r].mine[l]
#define lost(r, l) (relay[r].mine[l] && !has(l, relay[r].term))
#define lost_any(r) (lost(r, 0) || lost(r, 1))
#define ran_out(r, l) (relay[r].mine[l] && lease[l].left == 0)
#define fence_holds(r) (!lost_any(r) && !ran_out(r, 0) && !ran_out(r, 1))

/* The broker holds one more copy. */
inline append(row)
{
	/* I4: the first copies of a key's rows come in order. */
	assert(row != 2 || copies[2] > 0 || copies[1] > 0 || status[1] == DEAD);
	copies[row]++;
	/* I6: none too many without a fault, and no more than one for each fault. */
	assert(copies[row] <= 1 + faults)
}

inline forget_statement(r)
{
	R.marking = false; R.orphan = false; R.dead = false;
	R.rows[0] = false; R.rows[1] = false; R.rows[2] = false
}

/* What a relay remembers is gone. What is under way stays under way. */
inline forget(r)
{
	for (k : 0 .. ROWS-1) {
		if
		:: R.at[k] == SENT -> late[k] = true
		:: else
		fi;
		R.at[k] = OUT
	}
	R.mine[0] = false; R.mine[1] = false; R.giving = false; R.handing = false;
	R.soon[0] = false; R.soon[1] = false;
	R.term = 0; R.trust = 0; R.renewing = 0; R.age = 0;
#ifndef CURSOR_KEPT
	R.past[0] = false; R.past[1] = false;
#endif
	R.orphan = R.marking; R.stalled = false;
	k = 0
}

/* EventProducer._one_term: a term that lost a lane hands back the rest and begins anew. */
inline end_term(r)
{
	for (k : 0 .. 3) {
		if
		:: has(k, R.term) -> lease[k].nonce = 0; lease[k].left = 0
		:: else
		fi
	}
	forget(r)
}

inline own(r, l)
{
	/* The trust window: unless it was suspended, whoever lost a lane has nothing of it under way. */
	assert(relay[1-r].stalled || !relay[1-r].mine[l] || !under_way(1-r, l));
	lease[l].nonce = R.term; lease[l].left = LEASE;
	R.mine[l] = true;
#ifndef CURSOR_KEPT
	R.past[l] = false
#endif
}

/* Keeper._renew, and the statement `renew`: it gives new life also to a lease that ran out, if nobody took it. */
inline stamp(r)
{
	for (k : 0 .. 3) {
		if
		:: has(k, R.term) -> lease[k].left = LEASE
		:: else
		fi
	}
	k = 0
}

proctype Renewal(byte r)
{
	byte k;
	do
	:: d_step { asks(r) && R.trust < LEASE && !lost_any(r) ->
		stamp(r); R.trust = LEASE; R.renewing = 0; R.age = 0; R.stalled = false }
	:: d_step { asks(r) && lost_any(r) -> end_term(r) }
	:: d_step { R.renewing == 1 && !lost_any(r) -> stamp(r); R.renewing = 2 }
	:: d_step { acts(r) && R.renewing == 2 ->
#ifdef TRUST_FROM_ANSWER
		R.trust = LEASE;
#else
		R.trust = (LEASE - R.age > R.trust -> LEASE - R.age : R.trust);
#endif
		R.renewing = 0; R.age = 0 }
	od
}

/* Keeper._take, of a lane that is free or has run out. */
#define TAKE(l) \
	:: d_step { asks(r) && !R.giving && !R.handing && !R.mine[l] && \
		   (!R.mine[1-l] || !other_lives(r)) && lease[l].left == 0 -> own(r, l) }

/* Reading: the pending rows above the cursor. */
#define READ(l, first, last) \
	:: d_step { asks(r) && reads(r, l) && !R.past[l] -> \
		for (k : first .. last) { \
			R.at[k] = (status[k] == PENDING -> WAITS : R.at[k]) \
		} \
		R.past[l] = true; k = 0 }

/* Dispatcher._publish: the look at the trust and the hand-over are one step of the relay. */
#ifdef MARK_BEFORE_ACK
#define HAND_OVER(row) R.at[row] = ACKED; late[row] = true
#else
#define HAND_OVER(row) R.at[row] = SENT; R.soon[lane(row)] = true
#endif
#define PUBLISH(row, unhindered) \
	:: d_step { acts(r) && reads(r, lane(row)) && R.at[row] == WAITS && unhindered && may_publish(r) -> \
		assert(has(lane(row), R.term)); /* nobody else owns the lane */ \
		HAND_OVER(row) }

/* The broker answers; the relay takes the answer, or at the deadline goes without. */
#define ANSWER(row) \
	:: d_step { R.at[row] == SENT -> \
		append(row); R.at[row] = (awake(r) -> ACKED : YES); R.soon[lane(row)] = false } \
	:: d_step { R.at[row] == SENT && rejections < REJECTIONS -> \
		rejections++; R.at[row] = (awake(r) -> REFUSED : NO); R.soon[lane(row)] = false } \
	:: d_step { awake(r) && R.at[row] == YES -> R.at[row] = ACKED } \
	:: d_step { awake(r) && R.at[row] == NO -> R.at[row] = REFUSED } \
	:: d_step { awake(r) && R.at[row] == LOST && !R.soon[lane(row)] -> \
		R.at[row] = (reads(r, lane(row)) -> WAITS : OUT) }

/* Taking a term, sharing lanes, reading and publishing. */
proctype Work(byte r)
{
	byte k, l;
	do
	:: d_step { awake(r) && !R.cut && !R.term && lease[slot(r)].left == 0 ->
		terms++; R.term = terms; R.trust = LEASE;
		lease[slot(r)].nonce = R.term; lease[slot(r)].left = LEASE;
		/* choose: a fair share of what is free; of two lanes, each relay begins at its own */
		if
		:: lease[r].left == 0 -> l = r; own(r, l)
		:: else
		fi;
		if
		:: lease[1-r].left == 0 && (!R.mine[r] || !other_lives(r)) -> l = 1-r; own(r, l)
		:: else
		fi;
		l = 0 }
	TAKE(0)
	TAKE(1)
	/* Keeper._look: what waits of the lane is dropped, what is under way will be settled */
	:: d_step { asks(r) && R.mine[0] && R.mine[1] && !R.giving && other_lives(r) ->
		R.giving = true;
		R.at[1] = (R.at[1] == WAITS -> OUT : R.at[1]);
		R.at[2] = (R.at[2] == WAITS -> OUT : R.at[2]) }
	/* Keeper._give_back: first a mark from now on names only lanes that stay ours, then the lane is free */
#ifdef GIVE_UNSETTLED
	:: d_step { acts(r) && R.giving ->
#else
	:: d_step { acts(r) && R.giving && settled(r, 1) ->
#endif
		R.mine[1] = false; R.giving = false; R.handing = true }
	:: d_step { asks(r) && R.handing ->
		if
		:: has(1, R.term) -> lease[1].nonce = 0; lease[1].left = 0
		:: else
		fi;
		R.handing = false }
#ifdef LONE_ROW
	READ(0, 0, 0)
	PUBLISH(0, true)
	ANSWER(0)
#endif
	READ(1, 1, 2)
	PUBLISH(1, !row_under_way(r, 2))
	PUBLISH(2, may_follow(r))
	ANSWER(1)
	ANSWER(2)
	od
}

/* A statement begins. */
inline begin(r, what)
{
	for (k : 0 .. ROWS-1) {
		R.rows[k] = (R.at[k] == what);
		/* I5: a statement that begins under a stale term touches no row of the new owner's. */
		assert(!R.rows[k] || has(lane(k), R.term))
	}
	R.dead = (what == REFUSED); R.marking = true; k = 0
}

/* It takes effect. With the database out of reach the answer is lost: it will be repeated. */
inline apply(r)
{
	for (k : 0 .. ROWS-1) {
		if
#ifdef MARK_ANY_STATUS
		:: R.rows[k] ->
#else
		:: R.rows[k] && status[k] == PENDING ->
#endif
			/* I5: what is settled stays as it is, whoever settled it. */
			assert(status[k] == PENDING || status[k] == (R.dead -> DEAD : PRODUCED));
			/* I3: only after the ack. */
			assert(R.dead || copies[k] > 0);
			status[k] = (R.dead -> DEAD : PRODUCED)
		:: else
		fi;
		if
		:: R.rows[k] && !R.orphan && !R.cut -> R.at[k] = OUT
		:: else
		fi
	}
	k = 0; forget_statement(r)
}

#ifdef MARK_ANY_TERM
#define may_begin(r) true
#else
#define may_begin(r) fence_holds(r)
#endif
#define may_mark(r, what) (asks(r) && !relay[r].marking && any_is(r, what) && may_begin(r))

/* Marker, Dispatcher._dead_letter, and their statements. One that has begun at a fault may wait very long. */
proctype Marks(byte r)
{
	byte k;
	do
	:: d_step { may_mark(r, ACKED) -> begin(r, ACKED); apply(r) }
	:: d_step { may_mark(r, REFUSED) -> begin(r, REFUSED); apply(r) }
	:: d_step { R.marking -> apply(r) }
	od
}

/* Requests that a relay gave up or died over. They arrive after all, perhaps at the very end. */
proctype Stragglers()
{
	do
	:: d_step { late[0] -> late[0] = false; append(0) }
	:: d_step { late[1] -> late[1] = false; append(1) }
	:: d_step { late[2] -> late[2] = false; append(2) }
	od
}

proctype Clocks()
{
	byte k;
	do
	:: d_step { !due(0) && !due(1) ->
#ifndef NO_EXPIRY
		for (k : 0 .. 3) {
			if
			:: lease[k].left > 0 && !renews(0, k) && !renews(1, k) -> lease[k].left--
			:: else
			fi
		}
#endif
		for (k : 0 .. 1) {
			if
#ifdef CLOCK_THAT_STOPS
			:: relay[k].trust > 0 && !asks(k) && !relay[k].paused -> relay[k].trust--
#else
			:: relay[k].trust > 0 && !asks(k) -> relay[k].trust--
#endif
			:: else
			fi;
			if
			:: relay[k].renewing && relay[k].age < LEASE -> relay[k].age++
			:: else
			fi;
			relay[k].soon[0] = false; relay[k].soon[1] = false
		}
		k = 0 }
	od
}

#define CRASH 1
#define PAUSE 2
#define CUT 3
#define may_fail(r, kind) (!relay[r].down && (kind == CRASH || (!relay[r].paused && !relay[r].cut)))
/* A renewal may be under way. */
#define ASKED(x) relay[x].renewing = (relay[x].term -> 1 : 0); relay[x].age = 0
#define FAULT(x, stalls) \
	if \
	:: stalls == CRASH -> \
		relay[x].down = true; relay[x].paused = false; relay[x].cut = false; r = x; forget(r); r = 0 \
	:: stalls == PAUSE -> relay[x].paused = true; relay[x].stalled = true; ASKED(x) \
	:: stalls == CUT -> relay[x].cut = true; ASKED(x) \
	fi
#define FAIL(x, kind) \
	:: d_step { faults < FAULTS && may_fail(x, kind) -> faults++; FAULT(x, kind) } \
	:: d_step { faults < FAULTS && may_fail(x, kind) && may_mark(x, ACKED) -> \
		r = x; begin(r, ACKED); r = 0; faults++; FAULT(x, kind) } \
	:: d_step { faults < FAULTS && may_fail(x, kind) && may_mark(x, REFUSED) -> \
		r = x; begin(r, REFUSED); r = 0; faults++; FAULT(x, kind) }
#define LOSE(x, row) \
	:: d_step { faults < FAULTS && relay[x].at[row] == SENT -> \
		faults++; late[row] = true; relay[x].at[row] = LOST } \
	:: d_step { faults < FAULTS && relay[x].at[row] == SENT -> \
		faults++; append(row); relay[x].at[row] = LOST }

proctype Faults()
{
	byte r, k;
	do
	FAIL(0, CRASH)
	FAIL(0, PAUSE)
	FAIL(0, CUT)
	FAIL(1, CRASH)
	FAIL(1, PAUSE)
	FAIL(1, CUT)
	LOSE(0, 1)
	LOSE(0, 2)
	LOSE(1, 1)
	LOSE(1, 2)
#ifdef LONE_ROW
	LOSE(0, 0)
	LOSE(1, 0)
#endif
	:: break
	od
}

/* Each fault ends. */
proctype Healing(byte r)
{
	do
	:: d_step { R.down -> R.down = false }
	:: d_step { R.paused -> R.paused = false }
	:: d_step { R.cut -> R.cut = false }
	od
}

init {
	atomic {
#ifndef LONE_ROW
		status[0] = PRODUCED;
#endif
		run Renewal(0); run Work(0); run Marks(0); run Healing(0);
		run Renewal(1); run Work(1); run Marks(1); run Healing(1);
		run Stragglers(); run Clocks(); run Faults()
	}
}

/* I2: every row is acked and marked, or a dead letter. */
ltl progress { <> (status[0] != PENDING && status[1] != PENDING && status[2] != PENDING) }
