#!/bin/bash
# Makes who is who for one cluster: an authority, the API server's certificate, the key of service accounts, and a
# token and a kubeconfig for everybody else.
. "$(dirname "$0")/env.sh"

mkdir -p -m 0700 "$run/identity"
cd "$run/identity"
[ -f tokens.csv ] && exit
umask 077

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
key ca.key
openssl req -x509 -new -key ca.key -subj "/CN=outrider e2e" -days 3650 -out ca.crt
key service-accounts.key
openssl ec -in service-accounts.key -pubout -out service-accounts.pub 2>/dev/null

# One certificate for both of its roles: server for everybody, client of the kubelet.
key apiserver.key
openssl req -new -key apiserver.key -subj "/O=system:masters/CN=kube-apiserver" |
    openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -out apiserver.crt 2>/dev/null -extfile <(
        echo "extendedKeyUsage=serverAuth,clientAuth"
        echo "subjectAltName=DNS:localhost,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:$node_ip,IP:$api_ip"
    )

# member NAME USER GROUPS: a line of the API server's token file, and a kubeconfig.
member() {
    local token
    token=$(openssl rand -hex 16)
    echo "$token,$2,$1,\"$3\"" >>tokens.csv.new
    cat >"$run/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters:
  - name: outrider-e2e
    cluster:
      server: https://$node_ip:6443
      certificate-authority-data: $(base64 -w0 ca.crt)
users:
  - name: $1
    user: {token: $token}
contexts:
  - name: outrider-e2e
    context: {cluster: outrider-e2e, user: $1}
current-context: outrider-e2e
YAML
}
member admin admin system:masters
member controller-manager system:kube-controller-manager ""
member scheduler system:kube-scheduler ""
member proxy system:kube-proxy ""
member kubelet "system:node:$node" system:nodes
mv tokens.csv.new tokens.csv
