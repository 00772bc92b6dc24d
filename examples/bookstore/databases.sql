-- Each service has a database and a user of its own.
CREATE DATABASE bookstore CHARACTER SET utf8mb4;
CREATE DATABASE invoices CHARACTER SET utf8mb4;
CREATE USER bookstore@'%' IDENTIFIED BY 'secret';
CREATE USER invoices@'%' IDENTIFIED BY 'secret';
GRANT ALL ON bookstore.* TO bookstore@'%';
GRANT ALL ON invoices.* TO invoices@'%';
