"""
Values for the chart, each set of them right.
"""

from __future__ import annotations

MINIMAL = {
    "config": {
        "database": {"url": "mysql+asyncmy://shop@mariadb/shop"},
        "kafka": {"bootstrap_servers": "kafka:9092"},
    }
}
SECRET = {"name": "shop", "key": "x"}
EVERYTHING = {
    "image": {"repository": "registry.example/outbox-relay", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "config": {
        "database": {
            "url": "postgresql+asyncpg://shop@postgresql:5433/shop",
            "ssl": True,
            "timeout_seconds": 2.5,
        },
        "kafka": {
            "bootstrap_servers": "kafka-0:9093, kafka-1:9093,kafka-2",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": 'a "quoted" <name>',
        },
        "relay": {"stop_seconds": 12.5, "in_flight_bytes": 134217728, "max_active_relays": 3},
    },
    "secrets": {
        "database.password_file": SECRET,
        "database.ssl_ca_file": {"name": "authorities", "key": "ca.crt"},
        "kafka.sasl_password_file": SECRET,
        "kafka.ssl_ca_file": {"name": "authorities", "key": "ca.crt"},
    },
    "replicas": 4,
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "terminationGracePeriodSeconds": 40,
    "nodeSelector": {"disk": "none"},
    "tolerations": [{"key": "relays", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "podLabels": {"team": "shop"},
    "podAnnotations": {"team": "shop"},
    "serviceAccountName": "relay",
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "databaseTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "metricsFrom": [{"namespaceSelector": {}}],
        "extraEgress": [{"ports": [{"port": 8081}]}],
    },
}
AMQP = {
    "config": {
        "database": {"url": "mysql+asyncmy://shop@mariadb/shop"},
        "broker": {"kind": "amqp"},
        "amqp": {"url": "amqps://shop@rabbit/"},
        "http": {"enabled": False},
    },
    "secrets": {"amqp.password_file": SECRET},
    "migrate": {"enabled": False},
    "networkPolicy": {"enabled": True},
}
FROM_URL = {
    "config": {"kafka": {"bootstrap_servers": "kafka:9092"}},
    "extraEnv": [
        {
            "name": "OUTBOX_RELAY_DATABASE__URL",
            "valueFrom": {"secretKeyRef": {"name": "shop", "key": "url"}},
        }
    ],
}
CASES = {"minimal": MINIMAL, "everything": EVERYTHING, "amqp": AMQP, "from url": FROM_URL}
