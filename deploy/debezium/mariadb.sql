-- For Debezium's EventRouter over the outbox of the database shop, on MariaDB; docs/guide/log-tailing.md.
-- Computed columns that become headers. VIRTUAL: they take no space and are added at once.
ALTER TABLE shop.outbox
  ADD COLUMN ce_specversion CHAR(3) CHARACTER SET ascii AS ('1.0') VIRTUAL,
  ADD COLUMN ce_id CHAR(36) CHARACTER SET ascii AS (lower(concat(
    substr(hex(event_id), 1, 8), '-', substr(hex(event_id), 9, 4), '-', substr(hex(event_id), 13, 4), '-',
    substr(hex(event_id), 17, 4), '-', substr(hex(event_id), 21)))) VIRTUAL,
  ADD COLUMN ce_source VARCHAR(255) AS (coalesce(json_value(headers, '$.ce_source'), '/shop')) VIRTUAL;

-- No relay beside it: one that is started by mistake publishes nothing.
INSERT INTO shop.outbox_control (topic, reason) VALUES ('*', 'Debezium publishes this outbox');

CREATE USER IF NOT EXISTS 'debezium'@'%' IDENTIFIED BY 'debezium';
GRANT SELECT, RELOAD, SHOW DATABASES, REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR ON *.* TO 'debezium'@'%';
