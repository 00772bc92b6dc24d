-- 0001 The outbox and the tables beside it, at version 1

CREATE TABLE IF NOT EXISTS outbox (
    id BIGINT NOT NULL AUTO_INCREMENT, 
    event_id BINARY(16) NOT NULL DEFAULT (unhex(replace(uuid(),'-',''))), 
    event_name VARCHAR(255) NOT NULL, 
    topic VARCHAR(249) NOT NULL, 
    `key` VARBINARY(1024), 
    lane TINYINT GENERATED ALWAYS AS ((mod(crc32(coalesce(`key`,`event_id`)), 64))) STORED, 
    headers TEXT, 
    content_type VARCHAR(255) NOT NULL DEFAULT 'application/json', 
    payload MEDIUMBLOB NOT NULL, 
    codec TINYINT NOT NULL DEFAULT '0', 
    status TINYINT NOT NULL DEFAULT '0', 
    attempts INTEGER NOT NULL DEFAULT '0', 
    available_at DATETIME(6), 
    created_at DATETIME(6) NOT NULL DEFAULT (utc_timestamp(6)), 
    produced_at DATETIME(6) NOT NULL DEFAULT '1970-01-01 00:00:00.000000', 
    dead_at DATETIME(6), 
    last_error VARCHAR(1000), 
    PRIMARY KEY (id), 
    CONSTRAINT outbox_dead_ck CHECK ((status = 2) = (last_error IS NOT NULL))
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_bin;

SET @outbox_sql_mode = @@SESSION.sql_mode, SESSION sql_mode = IF(FIND_IN_SET('ANSI_QUOTES', @@SESSION.sql_mode), 'ANSI_QUOTES', '');

CREATE INDEX outbox_pending_ix ON outbox (status, id, lane);

SET SESSION sql_mode = @outbox_sql_mode;

CREATE TABLE IF NOT EXISTS outbox_lease (
    lane SMALLINT NOT NULL, 
    owner VARCHAR(255) NOT NULL DEFAULT '', 
    term BIGINT NOT NULL DEFAULT '0', 
    nonce VARCHAR(32) NOT NULL DEFAULT '', 
    expires_at DATETIME(6) NOT NULL DEFAULT '1970-01-01 00:00:00.000000', 
    wake_address VARCHAR(255) NOT NULL DEFAULT '', 
    server VARCHAR(255) NOT NULL DEFAULT '', 
    noted_id BIGINT NOT NULL DEFAULT '0', 
    crash_count INTEGER NOT NULL DEFAULT '0', 
    PRIMARY KEY (lane)
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS outbox_control (
    topic VARCHAR(249) NOT NULL, 
    paused_at DATETIME(6) NOT NULL DEFAULT (utc_timestamp(6)), 
    reason VARCHAR(255) NOT NULL DEFAULT '', 
    PRIMARY KEY (topic)
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS outbox_version (
    version INTEGER NOT NULL, 
    min_reader INTEGER NOT NULL, 
    migrated_at DATETIME(6) NOT NULL DEFAULT (utc_timestamp(6)), 
    PRIMARY KEY (version)
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_bin;

INSERT INTO outbox_lease (lane) VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12), (13), (14), (15), (16), (17), (18), (19), (20), (21), (22), (23), (24), (25), (26), (27), (28), (29), (30), (31), (32), (33), (34), (35), (36), (37), (38), (39), (40), (41), (42), (43), (44), (45), (46), (47), (48), (49), (50), (51), (52), (53), (54), (55), (56), (57), (58), (59), (60), (61), (62), (63);

INSERT INTO outbox_version (version, min_reader) VALUES (1, 1);

-- 0002 Slots of active relays in the lease table, at version 2

INSERT INTO outbox_lease (lane) VALUES (64), (65), (66), (67), (68), (69), (70), (71), (72), (73), (74), (75), (76), (77), (78), (79), (80), (81), (82), (83), (84), (85), (86), (87), (88), (89), (90), (91), (92), (93), (94), (95), (96), (97), (98), (99), (100), (101), (102), (103), (104), (105), (106), (107), (108), (109), (110), (111), (112), (113), (114), (115), (116), (117), (118), (119), (120), (121), (122), (123), (124), (125), (126), (127);

INSERT INTO outbox_version (version, min_reader) VALUES (2, 1);

-- 0003 Suspects in the lease table, at version 3

ALTER TABLE outbox_lease ADD COLUMN suspect_first_id BIGINT NOT NULL DEFAULT '0';

ALTER TABLE outbox_lease ADD COLUMN suspect_last_id BIGINT NOT NULL DEFAULT '0';

ALTER TABLE outbox_lease ADD COLUMN suspect_term BIGINT NOT NULL DEFAULT '0';

ALTER TABLE outbox_lease ADD COLUMN suspect_count INTEGER NOT NULL DEFAULT '0';

INSERT INTO outbox_version (version, min_reader) VALUES (3, 1);

