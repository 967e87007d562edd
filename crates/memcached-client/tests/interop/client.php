<?php
// PHP's Memcached: reads what the test has stored, and stores values for it. Run with host, port and protocol.

$client = new Memcached();
$client->setOption(Memcached::OPT_BINARY_PROTOCOL, $argv[3] === 'binary');
$client->setOption(Memcached::OPT_COMPRESSION, false);
$client->addServer($argv[1], (int) $argv[2]);
$expected = ['text' => 'Grüße', 'bytes' => "\x00\xff", 'number' => 42, 'true' => true, 'empty' => ''];
foreach ($expected as $key => $value) {
    $found = $client->get("ours/$key");
    if ($found !== $value) {
        fwrite(STDERR, "ours/$key: " . var_export($found, true) . ' ' . $client->getResultMessage());
        exit(1);
    }
}
$found = $client->get('ours/flags', null, Memcached::GET_EXTENDED);
if ($found['flags'] !== 7) {
    fwrite(STDERR, 'flags: ' . var_export($found, true));
    exit(1);
}
$client->set('theirs/text', 'Grüße');
$client->set('theirs/number', 42);
$client->set('theirs/true', true);
$client->setOption(Memcached::OPT_USER_FLAGS, 7);
$client->set('theirs/flags', 'text');
