-- 0001 The outbox and the tables beside it, at version 1

CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
    event_id BLOB DEFAULT (randomblob(16)) NOT NULL, 
    event_name VARCHAR(255) NOT NULL, 
    topic VARCHAR(249) NOT NULL, 
    "key" BLOB, 
    lane SMALLINT GENERATED ALWAYS AS ((0)) STORED, 
    headers TEXT, 
    content_type VARCHAR(255) DEFAULT 'application/json' NOT NULL, 
    payload BLOB NOT NULL, 
    codec SMALLINT DEFAULT '0' NOT NULL, 
    status SMALLINT DEFAULT '0' NOT NULL, 
    attempts INTEGER DEFAULT '0' NOT NULL, 
    available_at DATETIME, 
    created_at DATETIME DEFAULT (strftime('%Y-%m-%d %H:%M:%f000','now')) NOT NULL, 
    produced_at DATETIME DEFAULT '1970-01-01 00:00:00.000000' NOT NULL, 
    dead_at DATETIME, 
    last_error VARCHAR(1000), 
    CONSTRAINT outbox_dead_ck CHECK ((status = 2) = (last_error IS NOT NULL))
);

CREATE INDEX outbox_pending_ix ON outbox (status, id, lane);

CREATE TABLE IF NOT EXISTS outbox_lease (
    lane SMALLINT NOT NULL, 
    owner VARCHAR(255) DEFAULT '' NOT NULL, 
    term BIGINT DEFAULT '0' NOT NULL, 
    nonce VARCHAR(32) DEFAULT '' NOT NULL, 
    expires_at DATETIME DEFAULT '1970-01-01 00:00:00.000000' NOT NULL, 
    wake_address VARCHAR(255) DEFAULT '' NOT NULL, 
    server VARCHAR(255) DEFAULT '' NOT NULL, 
    noted_id BIGINT DEFAULT '0' NOT NULL, 
    crash_count INTEGER DEFAULT '0' NOT NULL, 
    PRIMARY KEY (lane)
);

CREATE TABLE IF NOT EXISTS outbox_control (
    topic VARCHAR(249) NOT NULL, 
    paused_at DATETIME DEFAULT (strftime('%Y-%m-%d %H:%M:%f000','now')) NOT NULL, 
    reason VARCHAR(255) DEFAULT '' NOT NULL, 
    PRIMARY KEY (topic)
);

CREATE TABLE IF NOT EXISTS outbox_version (
    version INTEGER NOT NULL, 
    min_reader INTEGER NOT NULL, 
    migrated_at DATETIME DEFAULT (strftime('%Y-%m-%d %H:%M:%f000','now')) NOT NULL, 
    PRIMARY KEY (version)
);

INSERT INTO outbox_lease (lane) VALUES (0);

INSERT INTO outbox_version (version, min_reader) VALUES (1, 1);

-- 0002 Slots of active relays in the lease table, at version 2

INSERT INTO outbox_version (version, min_reader) VALUES (2, 1);

-- 0003 Suspects in the lease table, at version 3

ALTER TABLE outbox_lease ADD COLUMN suspect_first_id BIGINT DEFAULT '0' NOT NULL;

ALTER TABLE outbox_lease ADD COLUMN suspect_last_id BIGINT DEFAULT '0' NOT NULL;

ALTER TABLE outbox_lease ADD COLUMN suspect_term BIGINT DEFAULT '0' NOT NULL;

ALTER TABLE outbox_lease ADD COLUMN suspect_count INTEGER DEFAULT '0' NOT NULL;

INSERT INTO outbox_version (version, min_reader) VALUES (3, 1);

