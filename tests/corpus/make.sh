#!/bin/bash
# Captures real clients and servers in a network namespace of its own, one file a protocol.
# Needs root and, of Debian, tcpdump nginx-light redis-server redis-tools knot bind9-dnsutils
# openssh-server mariadb-server postgresql bsdutils iputils-ping curl; a python3 with aioquic, which
# PYTHON names where it is another one. Run again, the files differ in
# ports, times and random bytes; then write the expected rows again too (README.md).
set -euo pipefail
cd "$(dirname "$0")"
space=outrider-corpus
work=$(mktemp -d)
chmod 755 "$work"
inside() { ip netns exec "$space" "$@"; }
end() {
    jobs -p | xargs -r kill 2>/dev/null || true
    wait || true
    ip netns del "$space" 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT
ip netns add "$space"
inside ip link set lo up
# Addresses that no machine has, so that a reader sees at once who is who.
inside ip addr add 192.0.2.1/32 dev lo
inside ip addr add 2001:db8::1/128 dev lo nodad

# capture NAME COMMAND...: what the command causes on the loopback device.
capture() {
    local name=$1
    shift
    inside tcpdump -i lo -U --immediate-mode -s 0 -w "$work/$name.pcap" 2>"$work/$name.log" &
    local dump=$!
    until grep -q listening "$work/$name.log"; do sleep 0.05; done
    inside "$@" >"$work/$name.out" 2>&1 || { echo "$name: $*: failed"; cat "$work/$name.out"; }
    sleep 0.5
    kill "$dump"
    wait "$dump" || true
    cp "$work/$name.pcap" "$name.pcap"
}

listening() { for _ in $(seq 100); do inside ss -Hltn "sport = :$1" | grep -q . && return; sleep 0.1; done; }

mkdir "$work/www"
echo 'Hello.' >"$work/www/index.html"
head -c 20000 /dev/zero >"$work/www/zeros"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
    -keyout "$work/key.pem" -out "$work/cert.pem" -subj /CN=shop.example 2>/dev/null
cat >"$work/nginx.conf" <<CONF
daemon off; error_log $work/error.log; pid $work/nginx.pid; events {}
http { access_log off; server {
    listen 192.0.2.1:8000; listen [2001:db8::1]:8000; root $work/www;
} server {
    listen 192.0.2.1:8443 ssl; ssl_certificate $work/cert.pem; ssl_certificate_key $work/key.pem; root $work/www;
} }
CONF
inside nginx -c "$work/nginx.conf" -p "$work" >/dev/null 2>&1 &
inside redis-server --bind 192.0.2.1 --port 7001 --protected-mode no --save '' --dir "$work" >/dev/null 2>&1 &
printf '%s\n' '$ORIGIN example.' '$TTL 60' '@ SOA ns hostmaster 1 2 3 4 5' '@ NS ns' \
    'ns A 192.0.2.1' 'shop A 192.0.2.7' 'shop AAAA 2001:db8::7' >"$work/example.zone"
cat >"$work/knot.conf" <<CONF
server:
    rundir: $work
    listen: 192.0.2.1@53
    user: root
database:
    storage: $work
acl:
  - id: all
    address: 192.0.2.1
    action: transfer
zone:
  - domain: example.
    file: $work/example.zone
    acl: all
CONF
inside knotd -c "$work/knot.conf" >/dev/null 2>&1 &
ssh-keygen -q -t ed25519 -N '' -f "$work/host"
mkdir -p /run/sshd
inside /usr/sbin/sshd -D -f /dev/null -h "$work/host" -p 2222 -o ListenAddress=192.0.2.1 >/dev/null 2>&1 &
chmod 777 "$work"
install -d -o mysql "$work/mysql"
mariadb-install-db --no-defaults --user=mysql --datadir="$work/mysql" >/dev/null 2>&1
echo "CREATE USER nobody@'%' IDENTIFIED BY 'secret';" >"$work/users.sql"
inside mysqld --no-defaults --init-file="$work/users.sql" --skip-name-resolve --user=mysql --datadir="$work/mysql" --socket="$work/mysql.sock" \
    --bind-address=192.0.2.1 --port=3307 >/dev/null 2>&1 &
install -d -o postgres "$work/pg"
(cd / && setpriv --reuid=postgres --regid=postgres --clear-groups \
    "$(ls -d /usr/lib/postgresql/*/bin | tail -1)/initdb" -D "$work/pg" -A trust >/dev/null 2>&1)
echo 'host all all all trust' >>"$work/pg/pg_hba.conf"
inside setpriv --reuid=postgres --regid=postgres --clear-groups \
    "$(ls -d /usr/lib/postgresql/*/bin | tail -1)/postgres" -D "$work/pg" -k "$work" \
    -h 192.0.2.1 -p 5433 >/dev/null 2>&1 &
for port in 8000 8443 7001 2222 3307 5433; do listening "$port"; done
sleep 1

capture http curl -s -H 'Host: shop.example' http://192.0.2.1:8000/ http://192.0.2.1:8000/zeros
capture http-v6 curl -s -g 'http://[2001:db8::1]:8000/'
capture tls curl -sk --resolve shop.example:8443:192.0.2.1 https://shop.example:8443/
capture quic "${PYTHON:-python3}" "$PWD/quic.py" 192.0.2.1 443 "$work/cert.pem" "$work/key.pem" shop.example
capture redis redis-cli -h 192.0.2.1 -p 7001 set key value
capture dns dig +tries=1 @192.0.2.1 shop.example A shop.example AAAA
capture zone-transfer dig @192.0.2.1 example AXFR
capture ssh ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -p 2222 192.0.2.1 true
capture mysql-denied mariadb --no-defaults --skip-ssl -h 192.0.2.1 -P 3307 -u nobody -pwrong -e 'select 1'
capture mysql mariadb --no-defaults --skip-ssl -h 192.0.2.1 -P 3307 -u nobody -psecret -e 'select 1'
capture postgres psql -h 192.0.2.1 -p 5433 -U postgres -c 'select 1'
capture refused curl -s http://192.0.2.1:81/
capture syslog logger -n 192.0.2.1 -P 5514 -d 'a line'
capture ping ping -q -c 3 -i 0.2 192.0.2.1
capture ping-v6 ping -q -c 3 -i 0.2 2001:db8::1
capture ping-fragments ping -q -c 1 -s 3000 -M dont 192.0.2.1
ls -l ./*.pcap
