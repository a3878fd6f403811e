"""The operator's guide followed to the letter, and what then must hold: direct routing through a NIC on vfio-pci, under an IOMMU and systemd."""

from appliance import LAN, SERVERS, get

from lab import VIP, VIP6, count_servers


def distributed(site, *vips):
    """Whether every real server answers for each of the VIPs."""
    return all(set(count_servers(site.client, vip, 12)) == SERVERS for vip in vips)


def test_ten_commands_lead_to_the_first_packet(director):
    assert director.first_answer.strip() in SERVERS


def test_requests_are_distributed_over_all_real_servers(site, director):
    assert distributed(site, VIP, VIP6)


def test_device_is_vfio_s_behind_the_iommu(director):
    assert director.run(f"basename $(readlink /sys/bus/pci/devices/{LAN.pci}/driver)").strip() == "vfio-pci"
    assert director.run("ls /sys/class/iommu").split(), "there is an IOMMU"
    [lan] = get(director, "ports")
    assert (lan["driver"], lan["mac"], lan["link_up"], lan["queues"]) == ("net_vmxnet3", LAN.mac, True, 2)
